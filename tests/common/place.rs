//! A namespace, and an operator's identity in it.

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Api, Resource};
use modelwright::api::ModelDeployment;

use super::{Cluster, Identity, OperatorOptions, deployment, wait};

pub struct Place {
    pub cluster: Cluster,
    pub identity: Identity,
    pub namespace: &'static str,
}

impl Place {
    pub fn options(&self) -> OperatorOptions {
        OperatorOptions::of(self.identity.kubeconfig.clone(), self.namespace)
    }

    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        self.cluster.api(self.namespace)
    }

    pub async fn create(&self, name: &str) {
        self.create_of(name, 1).await;
    }

    pub async fn create_of(&self, name: &str, replicas: i32) {
        let mut wanted = deployment(name);
        wanted.spec.replicas = Some(replicas);
        let api = self.api::<ModelDeployment>();
        api.create(&PostParams::default(), &wanted).await.expect("create");
    }

    /// Waits until the ModelDeployment is as it should be.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&ModelDeployment) -> bool,
    ) -> ModelDeployment {
        let api = self.api::<ModelDeployment>();
        wait(what, async || {
            let deployment = api.get(name).await.map_err(|e| e.to_string())?;
            if holds(&deployment) { Ok(deployment) } else { Err(format!("{name}: {:?}", deployment.status)) }
        })
        .await
    }
}
