//! The gateway: the data plane of a namespace.
//!
//! ```text
//! serving pods that are proven ──> announce
//!                                     v
//! watches ────────────────────────> table ──> stream (what is applied, what waits) ──> operator
//!               │
//! listen ──> proxy ──> choose (host, path, message) ──> hold ──> pick ──> forward ──> pod
//!                                                         ^                 │ safe to send again
//!                                                         └─────────────────┘
//! tee ──> mirror ──> candidate ──> compare: a share of what was answered, once it is
//! ```
//!
//! A route is never changed, only replaced; each request takes the one in force at every step. It is acknowledged when
//! no request can be sent by an older one any more: see `route::Route::begin`.

mod admin;
mod announce;
mod answer;
mod budget;
mod choose;
mod demand;
mod deployment;
mod forward;
mod headers;
mod hold;
mod keys;
mod local;
mod message;
mod metrics;
mod mirror;
mod mounted;
mod outgoing;
mod pick;
mod pod;
mod proxy;
mod refused;
mod route;
mod run;
mod stream;
mod table;
mod tee;
mod tls;
mod trial;
mod watches;

pub use admin::router as admin;
pub use announce::serve as announcements;
pub use keys::Keys;
pub use mounted::follow;
pub use proxy::Proxy;
pub use run::{Options, run};
pub use table::{PodView, RouteView, Table};
pub use tls::{Certificate, Tls};
pub use trial::TrialView;
