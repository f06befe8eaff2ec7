//! What the rollouts are told by.

mod models;
mod replacement;
mod scaling;
mod steps;

use serde_json::json;

use super::Sim;

pub type Story = fn(&mut Sim);

pub fn all() -> impl Iterator<Item = &'static (&'static str, Story)> {
    [models::STORIES, steps::STORIES, replacement::STORIES, scaling::STORIES].into_iter().flatten()
}

fn canary() -> serde_json::Value {
    json!({ "canary": { "steps": [
        { "setWeight": 5 }, { "pause": { "durationSeconds": 300 } }, { "setWeight": 50 }, { "pause": {} },
    ] } })
}
