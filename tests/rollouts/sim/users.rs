//! What people do: they apply specs and say verbs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Sim, parse};

impl Sim {
    /// As `kubectl apply`.
    pub fn apply(&mut self, uri: &str, replicas: i32) {
        self.say(format!("user: model {uri}, {replicas} replicas"));
        self.apply_spec(uri);
        self.spec.as_mut().unwrap()["spec"]["replicas"] = json!(replicas);
        self.read();
    }

    pub(super) fn apply_spec(&mut self, uri: &str) {
        let new = json!({
            "apiVersion": "modelwright.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": { "name": "fraud", "namespace": "ns", "uid": "u0", "generation": 1, "annotations": {} },
            "spec": {},
        });
        let spec = self.spec.get_or_insert(new);
        spec["spec"]["model"] = json!({ "uri": uri });
    }

    pub fn annotate(&mut self, key: &str, value: &str) {
        self.say(format!("user: annotates {key}={value}"));
        self.spec.as_mut().unwrap()["metadata"]["annotations"][key] = json!(value);
        self.read();
    }

    /// Past a step of whatever is rolled out.
    pub fn promote(&mut self, step: i32) {
        self.say_of_attempt("promote", &format!("/{step}"));
    }

    /// A verb for the attempt that there is, if there is one.
    pub fn say_of_attempt(&mut self, verb: &str, rest: &str) {
        let Some(route) = self.family().route else { return };
        let record = &route.spec.rollout;
        let Some(candidate) = record.candidate else { return };
        let value = format!("fraud-r{candidate}.{}{rest}", record.attempt);
        self.annotate(&format!("modelwright.dev/{verb}"), &value);
    }

    /// One field of the spec.
    pub fn set(&mut self, field: &str, value: Value) {
        self.say(format!("user: {field} {value}"));
        self.spec.as_mut().unwrap()["spec"][field] = value;
        self.read();
    }

    pub(super) fn read(&mut self) {
        self.deployment = Some(Arc::new(parse(self.spec.as_ref().unwrap())));
    }
}
