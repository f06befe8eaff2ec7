//! What a transcript tells of a write.

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
                    format!("; rolls out r{candidate}.{} at step {}", record["attempt"], record["step"])
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

/// What an object assigns.
pub fn slots(object: &Value) -> Vec<Slot> {
    let read = |part: &Value| serde_json::from_value(part.clone()).unwrap_or_default();
    Slot::assigned(&read(&object["metadata"]["labels"]), &read(&object["metadata"]["annotations"]))
}
