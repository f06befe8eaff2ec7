//! The gateway in this process, against pods in this process.

mod announce;
mod forward;
mod hold;
mod hostile;
mod keys;
mod leave;
mod mirror;
mod process;
mod retry;
mod routes;
mod support;
mod tls;
mod trial;
