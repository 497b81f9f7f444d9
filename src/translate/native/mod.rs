//! Responses requests of clients that speak upstream's own API: [`ask`] makes of one what upstream takes on the plan, [`relay`]
//! passes the answer on as upstream says it.

pub mod ask;
pub mod relay;
