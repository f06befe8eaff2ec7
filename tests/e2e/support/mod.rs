mod helper;
mod models;
mod s3;
mod space;
mod status;

pub use helper::Helper;
pub use models::*;
pub use s3::{Credentials, S3};
pub use space::{GPU, NEG, RELU, Space, in_namespace, question, until_pods_may_come};
pub use status::says;

use std::future::Future;
use std::time::{Duration, Instant};

/// For what the kubelet tries again with a back-off that doubles from ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Asks until the answer is `Ok`. The last refusal says what is missing.
pub async fn wait<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(missing) => assert!(start.elapsed() < PATIENCE, "no {what} after {PATIENCE:?}: {missing}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
