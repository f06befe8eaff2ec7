//! Whose token it is: the API server is asked (authentication.k8s.io/v1, TokenReview).

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Client, Url};
use serde::Deserialize;
use serde_json::json;

use crate::formats::NODE_CACHE_AUDIENCE as AUDIENCE;

/// Two servers of a highly available control plane may be behind it: one that is gone must not hold a pod up.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Reviewer {
    client: Client,
    url: Url,
    /// Read each time: the kubelet renews it.
    token: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A pod of this namespace.
    Namespace(String),
    /// A token of nobody, or for something else.
    Unknown,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

impl Reviewer {
    /// `folder` is the ServiceAccount's, with `token` and `ca.crt`.
    pub fn new(api_server: &str, folder: &Path) -> Result<Self, String> {
        let roots = match std::fs::read(folder.join("ca.crt")) {
            Ok(pem) => Certificate::from_pem_bundle(&pem).map_err(|e| format!("ca.crt: {e}"))?,
            // Plain HTTP, in tests.
            Err(_) => Vec::new(),
        };
        let url =
            Url::parse(api_server).and_then(|url| url.join("apis/authentication.k8s.io/v1/tokenreviews"));
        let url = url.map_err(|e| format!("{api_server}: {e}"))?;
        let client = Client::builder().tls_certs_only(roots).timeout(DEADLINE).no_proxy().build();
        let client = client.map_err(|e| e.to_string())?;
        Ok(Self { client, url, token: folder.join("token") })
    }

    pub async fn review(&self, token: &str) -> Result<Verdict, String> {
        let own = tokio::fs::read_to_string(&self.token).await;
        let own = own.map_err(|e| format!("{}: {e}", self.token.display()))?;
        let question = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": token, "audiences": [AUDIENCE] },
        });
        let asked = self.client.post(self.url.clone()).bearer_auth(own.trim()).body(question.to_string());
        let asked = asked.header("content-type", "application/json");
        let said = |e: reqwest::Error| super::super::client::cause(&e);
        let answer = asked.send().await.map_err(said)?;
        if !answer.status().is_success() {
            return Err(format!("the API server answers {} to a TokenReview", answer.status().as_u16()));
        }
        let review: Review = serde_json::from_slice(&answer.bytes().await.map_err(said)?)
            .map_err(|e| format!("that is no TokenReview: {e}"))?;
        Ok(verdict(&review.status))
    }
}

fn verdict(status: &Status) -> Verdict {
    // A server that does not know audiences leaves them out, and would take the token for its own.
    let is_meant = status.authenticated && status.audiences.iter().any(|audience| audience == AUDIENCE);
    let account = status.user.username.strip_prefix("system:serviceaccount:").filter(|_| is_meant);
    match account.and_then(|account| account.split_once(':')) {
        Some((namespace, _)) => Verdict::Namespace(namespace.to_owned()),
        None => Verdict::Unknown,
    }
}
