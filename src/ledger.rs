//! What happened: finished requests and their totals.
