//! The words of the command line and what they do. `args` says what can be typed; one file for each command.

pub mod accounts;
pub mod activate;
pub mod args;
pub mod client;
pub mod crash;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod draw;
pub mod environment;
pub mod host;
pub mod interrupt;
pub mod launch;
pub mod lease;
pub mod login;
pub mod logout;
pub mod models;
pub mod quota;
pub mod renew;
pub mod replay;
pub mod report;
pub mod restore;
pub mod run;
pub mod setup;
pub mod sign_in;
pub mod status;
pub mod statusline;
pub mod ui;
pub mod upstream;
pub mod view;

pub use run::main;
