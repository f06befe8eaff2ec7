//! Many objects at once.

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;

use crate::report::say;

const WRITERS: usize = 4;
pub const LIMIT: Duration = Duration::from_secs(900);

/// As fast as the writers can. Seconds from the first create until the last is `done`.
pub async fn create_all<K>(
    api: &Api<K>,
    numbers: Range<usize>,
    make: impl Fn(usize) -> K,
    done: impl Fn(&K) -> bool,
) -> f64
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::Serialize
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let start = Instant::now();
    let objects: Vec<K> = numbers.map(make).collect();
    let mut missing: HashSet<String> = objects.iter().map(|object| object.name_any()).collect();
    let params = PostParams::default();
    let creates = futures::stream::iter(objects)
        .map(|object| {
            let params = &params;
            async move { api.create(params, &object).await.map(drop) }
        })
        .buffer_unordered(WRITERS)
        .try_collect::<()>();
    let watched = async {
        let mut events =
            watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(object) if done(&object) => {
                    missing.remove(&object.name_any());
                }
                Ok(_) => {}
                Err(error) => say(&format!("the watch failed and starts again: {error}")),
            }
            if missing.is_empty() {
                break;
            }
        }
        Instant::now()
    };
    let both = async { tokio::join!(creates, watched) };
    let (created, end) = tokio::time::timeout(LIMIT, both).await.expect("ready in time");
    created.expect("create");
    (end - start).as_secs_f64()
}
