//! Tests of the log as its users see it.

mod basics;
mod crashes;
mod damage;
mod faults;
mod model;
mod repairs;
mod script;
mod support;
