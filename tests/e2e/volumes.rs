//! `pvc://`: a claim of the user's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::support::{
    RELU, Space, in_namespace, relu, says, until_pods_may_come, wait, weights, with_weights_in,
};

/// On the node; a test removes its part.
const FOLDER: &str = "/tmp/modelwright-e2e";

/// Fills a folder of the node, as the owner of a volume would; that takes a pod that Pod Security would refuse.
async fn fill(space: &Space, files: &[String]) {
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    let body = serde_json::from_value(json!({ "metadata": { "name": "e2e-volumes" } })).unwrap();
    match namespaces.create(&PostParams::default(), &body).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other.expect("a namespace")),
    }
    until_pods_may_come(&space.client, "e2e-volumes").await;
    let path = format!("/volume/{}", space.name);
    let arguments: Vec<&str> = ["fill", &path].into_iter().chain(files.iter().map(String::as_str)).collect();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "generateName": format!("{}-", space.name) },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "fill", "image": "modelwright.dev/e2e-helper:1", "imagePullPolicy": "IfNotPresent",
                "args": arguments, "securityContext": { "runAsUser": 0 },
                "volumeMounts": [{ "name": "volume", "mountPath": "/volume" }],
            }],
            "volumes": [{ "name": "volume", "hostPath": { "path": FOLDER, "type": "DirectoryOrCreate" } }],
        },
    }))
    .unwrap();
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), "e2e-volumes");
    let name = pods.create(&PostParams::default(), &pod).await.expect("a pod").metadata.name.unwrap();
    wait("filled volume", async || {
        let status = pods.get(&name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        (status.phase.as_deref() == Some("Succeeded")).then_some(()).ok_or(format!("{status:?}"))
    })
    .await;
    pods.delete(&name, &DeleteParams::default()).await.expect("a delete");
}

fn file(path: &str, bytes: &[u8]) -> String {
    format!("{path}={}", STANDARD.encode(bytes))
}

#[tokio::test]
async fn a_claim_is_read_and_no_link_in_it_is_followed() {
    in_namespace("claim", async |space| {
        let weights = weights([10.0, 20.0, 30.0, 40.0]);
        let files = [
            file("plain/model.onnx", &relu()),
            file("folder/model.onnx", &with_weights_in("weights.bin")),
            file("folder/weights.bin", &weights),
            file("linked/model.onnx", &with_weights_in("weights.bin")),
            "linked/weights.bin->../folder/weights.bin".to_string(),
            "link.onnx->plain/model.onnx".to_string(),
        ];
        fill(space, &files).await;
        space.apply("model", &space.spec("pvc://models/plain/model.onnx")).await;
        let parts = ["persistentvolumeclaim \"models\" not found"];
        space.until_degraded("model", "Unschedulable", &parts).await;

        let size = json!({ "storage": "1Gi" });
        let volume = json!({
            "metadata": { "name": space.name },
            "spec": {
                "capacity": size, "accessModes": ["ReadOnlyMany"], "storageClassName": "none",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": { "path": format!("{FOLDER}/{}", space.name) },
                "claimRef": { "namespace": space.name, "name": "models" },
            },
        });
        let volumes: Api<PersistentVolume> = Api::all(space.client.clone());
        let volume = serde_json::from_value(volume).unwrap();
        volumes.create(&PostParams::default(), &volume).await.expect("a volume");
        let claim = json!({
            "metadata": { "name": "models" },
            "spec": {
                "accessModes": ["ReadOnlyMany"], "storageClassName": "none", "volumeName": space.name,
                "resources": { "requests": size },
            },
        });
        space.create::<PersistentVolumeClaim>(&claim).await;
        let ready = space.until_ready("model").await;
        says(&ready, "ModelResolved", "True", "MutableSource", &["pinned by sha256"]).unwrap();
        space.answers("model", 1, RELU).await;

        space.apply("model", &space.spec("pvc://models/linked/model.onnx")).await;
        let parts = ["external data file weights.bin named by tensor \"w\"", "is a symbolic link"];
        space.until_degraded("model", "ModelInvalid", &parts).await;
        space.apply("model", &space.spec("pvc://models/link.onnx")).await;
        let parts = ["link.onnx is a symbolic link, and none is followed"];
        space.until_degraded("model", "SourceForbidden", &parts).await;
        space.apply("model", &space.spec("pvc://models/nothing.onnx")).await;
        let parts = ["pvc://models/nothing.onnx: there is no such file; check model.uri"];
        space.until_degraded("model", "SourceNotFound", &parts).await;
        space.serves_on("model", 1, RELU).await;

        space.apply("model", &space.spec("pvc://models/folder")).await;
        space.until_ready("model").await;
        space.answers("model", 2, [9.0, 22.0, 27.0, 44.0]).await;
        volumes.delete(&space.name, &DeleteParams::default()).await.expect("a delete");
        fill(space, &[]).await;
    })
    .await;
}
