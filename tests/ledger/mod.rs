//! The ledger: a load client that writes down what became of every request, and knows what should have.
//!
//! A request is *lost* when it has no answer in time, or an error; *twice* when an answer came that nobody waited for;
//! *undeclared* when a version answered that had not been asked for while the request was on its way, or that had been
//! retired before it was sent; *wrong* when the answer is another request's, or its headers name another model.
#![allow(dead_code, unused_imports)] // each program uses its part

mod book;
mod client;
mod load;
mod model;

pub use book::{Book, Entry, Outcome, Verdict, Way};
pub use client::Target;
pub use load::{Load, Pace};
pub use model::{FAILS, HEAVY, broken, digest, model};
