//! Brings a model from its store: once to pin it and read its graph (`resolve`), and into every serving pod
//! (`fetch`).
//!
//! ```text
//! resolve pod:  SourceRequest ── locate ── walk the graph by ranges ── stat its external data ──> ResolveReport
//! serving pod:  Assignments (a file, watched) ── stream, hash, write ── rename ──> revisions/<revision>/, LoadStatus
//! node cache:   GET and PUT of what serving pods have fetched, one pod a node
//! ```
//!
//! | module | what it holds |
//! |-|-|
//! | `cli` | arguments, signals, exit codes |
//! | `resolve`, `agent`, `fetch` | the two jobs above |
//! | `cache` | the node cache, and how a fetch uses it |
//! | `source` | one face for the four kinds of store: `s3`, `web` (plain HTTP), `hub`, `claim` |
//! | `client`, `address` | HTTP with deadlines, redirects and addresses under control |
//! | `secret`, `digest`, `error` | credentials and CA bundle, sha256 as users write it, reasons |

mod address;
mod agent;
pub mod cache;
mod claim;
pub mod cli;
mod client;
mod digest;
mod error;
mod fetch;
mod hub;
mod resolve;
mod s3;
mod secret;
mod source;
mod web;

use std::path::PathBuf;
use std::time::Duration;

pub use crate::address::forbidden;
pub use agent::{Folders, run as fetch};
pub use digest::whole as digest_of;
pub use error::{LoadError, Result};
pub use resolve::{Outcome, resolve};

use crate::formats::paths;

/// Where the loader finds what Kubernetes mounts, and how patient it is.
#[derive(Clone, Debug)]
pub struct Env {
    /// The Secret's folder, one file a key.
    pub secret: PathBuf,
    /// The CA bundle's folder, PEM files.
    pub ca: PathBuf,
    /// The claim of a `pvc://` source.
    pub claim: PathBuf,
    /// The node's, where there is one.
    pub cache: Option<cache::Access>,
    /// For tests: stores on 127.0.0.1. The binary has no way to say so.
    pub allow_loopback: bool,
    /// Until a connection stands.
    pub connect: Duration,
    /// Without a single byte.
    pub stall: Duration,
}

impl Default for Env {
    fn default() -> Self {
        Self {
            secret: paths::STORE_SECRET.into(),
            ca: paths::CA_BUNDLE.into(),
            claim: paths::CLAIM.into(),
            cache: None,
            allow_loopback: false,
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests;
