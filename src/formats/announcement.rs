use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;

/// `POST /modelwright/v1/announce` to a gateway, by a serving pod that has just proven its model: what the API server will
/// say of it, a second before it does. Answered 204, or 404 where it is not believed: the gateway may not have seen the
/// pod yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    pub format_version: u32,
    /// The pod's name and uid.
    pub pod: String,
    pub uid: String,
    /// The address that the pod knows as its own. The connection must come from it.
    pub ip: IpAddr,
}

impl Announcement {
    pub const PATH: &str = "/modelwright/v1/announce";
    /// Of the whole document: names, a uid and an address.
    pub const MOST_BYTES: usize = 4096;

    pub fn new(pod: String, uid: String, ip: IpAddr) -> Self {
        Self { format_version: FORMAT_VERSION, pod, uid, ip }
    }
}
