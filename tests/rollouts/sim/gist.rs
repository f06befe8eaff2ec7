//! What a transcript tells of a write.

use modelwright::api::StatusCondition;
use modelwright::formats::Slot;
use modelwright::plan::Kind;
use serde_json::Value;

/// What a write says that a reader of a transcript wants to know.
pub fn gist(kind: Kind, body: &Value) -> String {
    let spec = &body["spec"];
    match kind {
        Kind::ReplicaSet => {
            let assigned = slots(&spec["template"]);
            let own = format!("r{}", assigned[0].revision);
            let other = body["metadata"]["labels"]["modelwright.dev/set"].as_str() != Some(own.as_str());
            let of = if other { format!(" of {own}") } else { String::new() };
            format!("with {} replicas{of}", spec["replicas"])
        }
        Kind::Pod if body["spec"].is_null() => {
            let named = |fetch_only: bool| {
                let slots = slots(body).into_iter().filter(|slot| slot.fetch_only == fetch_only);
                let names: Vec<String> = slots.map(|slot| format!("r{}", slot.revision)).collect();
                names.join(" and ")
            };
            let (held, files) = (named(false), named(true));
            let files = if files.is_empty() { files } else { format!(", and the files of {files}") };
            let proven = body["metadata"]["labels"]["modelwright.dev/serves"].as_str().unwrap();
            let proven = if proven.is_empty() { "nothing".into() } else { proven.replace('.', " and ") };
            format!("to hold {held}{files}; {proven} is proven")
        }
        Kind::Service if spec["selector"]["modelwright.dev/component"] == "gateway" => {
            "to the gateways".into()
        }
        Kind::ModelRoute => {
            let backends = spec["backends"].as_array().into_iter().flatten();
            let shares: Vec<String> =
                backends.map(|b| format!("r{} {} %", b["revision"], b["weight"])).collect();
            let mode = spec["mode"].as_str().unwrap().to_lowercase();
            let record = &spec["rollout"];
            let mirror = match &spec["shadow"] {
                Value::Null => String::new(),
                shadow => format!("; mirrors {} % to r{}", shadow["percent"], shadow["revision"]),
            };
            let rollout = match (&record["candidate"], &record["aborted"]) {
                (Value::Null, _) => String::new(),
                (candidate, Value::Null) => {
                    let (attempt, step) = (&record["attempt"], &record["step"]);
                    format!("; rolls out r{candidate}.{attempt} at step {step}{}", room(record))
                }
                (candidate, _) => format!("; r{candidate}.{} was aborted", record["attempt"]),
            };
            let drained = match &spec["drained"] {
                Value::Null => String::new(),
                drained => {
                    format!("; none for r{} to {}", drained["revision"], drained["pod"].as_str().unwrap())
                }
            };
            format!("{mode} to {}{drained}{mirror}{rollout}", shares.join(", "))
        }
        _ => String::new(),
    }
}

/// Ready, and what else is wrong for another reason.
pub fn told(conditions: &[StatusCondition]) -> String {
    let ready = &conditions[0];
    let bad = |c: &&StatusCondition| {
        let bad = [("Progressing", "False"), ("Degraded", "True")];
        bad.contains(&(&c.type_, &c.status)) && c.reason != ready.reason
    };
    let bad = conditions.iter().filter(bad).map(|c| format!(" [{} {} {}]", c.type_, c.status, c.reason));
    let bad: String = bad.collect();
    format!("status: {} {}: {}{bad}", ready.status, ready.reason, ready.message)
}

/// Where new pods find room, if not just beside the old ones.
fn room(record: &Value) -> String {
    match (record["replacement"].as_str().unwrap(), record["replacementReason"].as_str()) {
        _ if record["stable"].is_null() => String::new(),
        ("Surge", None) => String::new(),
        (replacement, None) => format!(", {replacement}"),
        (replacement, Some(reason)) => format!(", {replacement} ({reason})"),
    }
}

/// What an object assigns.
pub fn slots(object: &Value) -> Vec<Slot> {
    let read = |part: &Value| serde_json::from_value(part.clone()).unwrap_or_default();
    Slot::assigned(&read(&object["metadata"]["labels"]), &read(&object["metadata"]["annotations"]))
}
