//! The ControllerRevision: the record of what a revision is and how it runs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::autoscale::Measured;
use super::super::revision::{PodTemplate, RevisionData, RevisionSpec, resolve_at, restarted_at};
use super::super::write::{Kind, Write};
use super::{metadata, revision_name, template};
use crate::api::annotations;
use crate::formats::{FORMAT_VERSION, Resolved};
use crate::observe::{Meta, RevisionView, Snapshot};

pub(in crate::plan) fn revision_data(snapshot: &Snapshot, number: u64, resolved: Resolved) -> RevisionData {
    let spec = RevisionSpec::of(&snapshot.deployment.spec);
    let (image, runtime_version) = template::image_for(&snapshot.settings, &spec);
    let template = PodTemplate::from(&template::pod_template(snapshot, number, &spec, &resolved, &image));
    RevisionData { format_version: FORMAT_VERSION, spec, resolved, image, runtime_version, template }
}

pub(in crate::plan) fn controller_revision(snapshot: &Snapshot, number: u64, data: &RevisionData) -> Write {
    let name = revision_name(snapshot, number);
    let mut metadata = metadata(snapshot, &name, Some(number), None);
    let verbs = [
        (annotations::RESOLVE_AT, resolve_at(snapshot)),
        (annotations::RESTARTED_AT, restarted_at(snapshot)),
    ];
    for (key, value) in verbs {
        if let Some(value) = value {
            metadata["annotations"][key] = json!(value);
        }
    }
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": number,
        "data": data,
    });
    Write::Create { kind: Kind::ControllerRevision, name, body }
}

/// The record as it will be once written, so that the same plan can build on it.
pub(in crate::plan) fn recorded(snapshot: &Snapshot, number: u64, data: RevisionData) -> RevisionView {
    RevisionView {
        meta: Meta {
            family: snapshot.key(),
            name: revision_name(snapshot, number),
            uid: String::new(),
            resource_version: 0,
            owner_uid: Some(snapshot.uid().into()),
            created: Timestamp::UNIX_EPOCH,
            deleting: false,
        },
        number,
        data: Some(data),
        resolve_at: resolve_at(snapshot).map(str::to_string),
        restarted_at: restarted_at(snapshot).map(str::to_string),
        measured: None,
    }
}

/// The verb was obeyed and found the same bytes.
pub(in crate::plan) fn note_resolved_at(snapshot: &Snapshot, revision: &RevisionView) -> Write {
    note(snapshot, revision, resolve_at(snapshot).or(Some("")), revision.measured.as_ref())
}

pub(in crate::plan) fn note_measured(
    snapshot: &Snapshot,
    revision: &RevisionView,
    measured: &Measured,
) -> Write {
    note(snapshot, revision, revision.resolve_at.as_deref(), Some(measured))
}

/// Data is immutable, metadata is not; `revision` and `data` are left to their first writer. Always both annotations:
/// server-side apply takes away what one of our writes said and the next does not.
fn note(
    snapshot: &Snapshot,
    revision: &RevisionView,
    resolve_at: Option<&str>,
    measured: Option<&Measured>,
) -> Write {
    let mut metadata = metadata(snapshot, &revision.meta.name, Some(revision.number), Some(&revision.meta));
    if let Some(value) = resolve_at {
        metadata["annotations"][annotations::RESOLVE_AT] = json!(value);
    }
    if let Some(measured) = measured {
        metadata["annotations"][annotations::MEASURED] = json!(json!(measured).to_string());
    }
    let body: Value = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": revision.number,
    });
    Write::Apply { kind: Kind::ControllerRevision, name: revision.meta.name.clone(), body }
}
