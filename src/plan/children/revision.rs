//! The ControllerRevision: the record of what a revision is and how it runs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::revision::{PodTemplate, RevisionData, RevisionSpec, resolve_at};
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
    if let Some(verb) = resolve_at(snapshot) {
        metadata["annotations"] = json!({ annotations::RESOLVE_AT: verb });
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
            family: (snapshot.namespace().into(), snapshot.name().into()),
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
    }
}

/// The verb was obeyed and found the same bytes. Data is immutable, metadata is not; `revision` and `data` are left
/// to their first writer.
pub(in crate::plan) fn note_resolved_at(snapshot: &Snapshot, revision: &RevisionView) -> Write {
    let mut metadata = metadata(snapshot, &revision.meta.name, Some(revision.number), Some(&revision.meta));
    metadata["annotations"] = json!({ annotations::RESOLVE_AT: resolve_at(snapshot).unwrap_or_default() });
    let body: Value = json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "revision": revision.number,
    });
    Write::Apply { kind: Kind::ControllerRevision, name: revision.meta.name.clone(), body }
}
