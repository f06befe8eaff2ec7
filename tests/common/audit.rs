//! Requests as the API server counted them.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;

/// Reads the audit log from where it was last read.
pub struct Audit {
    path: PathBuf,
    offset: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub verb: String,
    user: User,
    #[serde(default)]
    pub user_agent: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    stage: String,
    #[serde(rename = "requestURI")]
    pub uri: String,
    request_received_timestamp: String,
    stage_timestamp: String,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Object {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl Audit {
    /// From the end of what is there now.
    pub fn from_now(path: PathBuf) -> Self {
        let mut audit = Self { path, offset: 0 };
        audit.skip();
        audit
    }

    pub fn skip(&mut self) {
        self.offset = std::fs::metadata(&self.path).map(|m| m.len()).unwrap_or(0);
    }

    /// Finished requests since the last reading; watches and leases are left out.
    pub fn read(&mut self) -> Vec<Request> {
        let mut file = BufReader::new(File::open(&self.path).expect("the cluster has an audit log"));
        file.seek(SeekFrom::Start(self.offset)).expect("seek");
        let mut requests = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            let read = file.read_line(&mut line).expect("read");
            if !line.ends_with('\n') {
                return requests; // the API server is in the middle of a line
            }
            self.offset += read as u64;
            let request: Request = serde_json::from_str(&line).expect("an audit event");
            let counted = request.verb != "watch" && request.resource() != "leases";
            if request.stage == "ResponseComplete" && counted {
                requests.push(request);
            }
        }
    }

    /// What one user asked since the last reading.
    pub fn of(&mut self, user: &str) -> Vec<Request> {
        let mut requests = self.read();
        requests.retain(|r| r.user.username == user);
        requests
    }
}

impl Request {
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    pub fn is_read(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list")
    }

    pub fn resource(&self) -> &str {
        &self.object_ref.resource
    }

    pub fn namespace(&self) -> &str {
        &self.object_ref.namespace
    }

    pub fn name(&self) -> &str {
        &self.object_ref.name
    }

    pub fn code(&self) -> u16 {
        self.response_status.code
    }

    pub fn user(&self) -> &str {
        &self.user.username
    }

    pub fn received_at(&self) -> Timestamp {
        self.request_received_timestamp.parse().expect("a time")
    }

    pub fn answered_at(&self) -> Timestamp {
        self.stage_timestamp.parse().expect("a time")
    }

    /// `patch modeldeployments/status`
    pub fn kind(&self) -> String {
        let (resource, subresource) = (&self.object_ref.resource, &self.object_ref.subresource);
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{} {resource}{slash}{subresource}", self.verb)
    }
}
