//! Tests of the log as its users see it.

mod basics;
mod damage;
mod support;
