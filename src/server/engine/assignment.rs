//! Which execution provider runs which node, and whether that is what was asked for. Pure.
//!
//! Two views of one session are put together. ONNX Runtime *assigns* each node to a provider right after its basic
//! optimisations: those are the counts that are shown, and later fusions make fewer nodes of them. It tells no types,
//! so a profile of the first run adds the kernels that really *ran*, with the tensors they saw. The limit: a branch
//! that the first run did not take shows only by its operators' names.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

/// What a model that was to run on a GPU may leave to the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuFallback {
    Forbid,
    /// What computes shapes: a few numbers, that a GPU's provider leaves to the CPU on purpose.
    #[default]
    ShapeOpsOnly,
    Allow,
}

impl CpuFallback {
    /// As in `spec.runtime.cpuFallback`.
    pub fn name(self) -> &'static str {
        match self {
            CpuFallback::Forbid => "Forbid",
            CpuFallback::ShapeOpsOnly => "ShapeOpsOnly",
            CpuFallback::Allow => "Allow",
        }
    }
}

impl std::str::FromStr for CpuFallback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [CpuFallback::Forbid, CpuFallback::ShapeOpsOnly, CpuFallback::Allow]
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| "not one of Forbid, ShapeOpsOnly, Allow".into())
    }
}

/// A node of the graph, and where ONNX Runtime put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `CUDAExecutionProvider`
    pub provider: String,
    /// Empty: the standard's.
    pub domain: String,
    pub operator: String,
}

/// A node of the final graph, as it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    pub provider: String,
    pub operator: String,
    pub inputs: Vec<Seen>,
    pub outputs: Vec<Seen>,
}

/// A tensor that went through a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub is_integer: bool,
    pub rank: usize,
}

const CPU: &str = "CPUExecutionProvider";
/// Their answer is a shape, or was known before.
const SHAPES: [&str; 3] = ["Shape", "Size", "Constant"];
/// They compute shapes when they work on integers of rank 0 and 1, and move data else.
const ON_SHAPES: [&str; 6] = ["Gather", "Slice", "Concat", "Cast", "Squeeze", "Unsqueeze"];
/// Operators named in a message.
const NAMED: usize = 10;

/// `CUDAExecutionProvider` is `CUDA` to users.
pub fn provider_name(provider: &str) -> &str {
    match provider {
        "TensorrtExecutionProvider" => "TensorRT",
        other => other.strip_suffix("ExecutionProvider").unwrap_or(other),
    }
}

/// Nodes by provider.
pub fn counts(nodes: &[Node]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for node in nodes {
        *counts.entry(provider_name(&node.provider).to_string()).or_default() += 1;
    }
    counts
}

/// The provider with the most nodes.
pub fn device(nodes: &[Node]) -> Option<String> {
    counts(nodes).into_iter().max_by_key(|(_, count)| *count).map(|(provider, _)| provider)
}

/// What the user is told when `nodes`, which were to run on `wanted`, are on the CPU against the policy. `kernels`: of
/// the first run; None: the model refused it.
pub fn complaint(
    wanted: &str,
    policy: CpuFallback,
    nodes: &[Node],
    kernels: Option<&[Kernel]>,
) -> Option<String> {
    let offenders = offenders(policy, nodes, kernels);
    if offenders.is_empty() {
        return None;
    }
    let mut named: Vec<(&String, &usize)> = offenders.iter().collect();
    named.sort_by_key(|(operator, count)| (std::cmp::Reverse(**count), *operator));
    let mut list: Vec<String> =
        named.iter().take(NAMED).map(|(operator, count)| format!("{operator} {count}")).collect();
    if named.len() > NAMED {
        list.push(format!("and {} more operators", named.len() - NAMED));
    }
    let on_cpu = nodes.iter().filter(|n| n.provider == CPU).count();
    let unseen = match (policy, kernels) {
        (CpuFallback::ShapeOpsOnly, None) => {
            "; the model refused inputs of zeros, so that what they work on was not seen"
        }
        _ => "",
    };
    Some(format!(
        "the model was to run on {wanted}, and ONNX Runtime leaves {on_cpu} of its {} nodes to the CPU (counted before \
         late fusions), of which runtime.cpuFallback: {} does not accept {}{unseen}: export the model without them, \
         add an execution provider that has them, or set runtime.cpuFallback: Allow",
        nodes.len(),
        policy.name(),
        list.join(", "),
    ))
}

/// Operators on the CPU that the policy does not accept, with their counts.
fn offenders(policy: CpuFallback, nodes: &[Node], kernels: Option<&[Kernel]>) -> BTreeMap<String, usize> {
    let mut offenders = BTreeMap::new();
    let accepted = |node: &Node| match policy {
        CpuFallback::Allow => true,
        CpuFallback::Forbid => false,
        CpuFallback::ShapeOpsOnly => {
            let operator = node.operator.as_str();
            let by_name = SHAPES.contains(&operator) || ON_SHAPES.contains(&operator) && kernels.is_some();
            by_name && matches!(node.domain.as_str(), "" | "ai.onnx")
        }
    };
    for node in nodes.iter().filter(|n| n.provider == CPU && !accepted(n)) {
        *offenders.entry(node.operator.clone()).or_default() += 1;
    }
    if policy != CpuFallback::ShapeOpsOnly {
        return offenders;
    }
    // By name: a warm-up may have run them more than once.
    let ran: BTreeSet<(&str, &str)> = kernels
        .unwrap_or_default()
        .iter()
        .filter(|kernel| kernel.provider == CPU && !computes_a_shape(kernel))
        .map(|kernel| (kernel.operator.as_str(), kernel.name.as_str()))
        .collect();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (operator, _) in ran {
        *seen.entry(operator).or_default() += 1;
    }
    for (operator, count) in seen {
        offenders.entry(operator.to_string()).or_insert(count);
    }
    offenders
}

fn computes_a_shape(kernel: &Kernel) -> bool {
    let operator = kernel.operator.as_str();
    SHAPES.contains(&operator)
        || ON_SHAPES.contains(&operator)
            && kernel.inputs.iter().all(|t| t.is_integer && t.rank <= 1)
            // A Cast may make floats of them: the scales of a Resize.
            && kernel.outputs.iter().all(|t| t.rank <= 1)
}

/// The kernels in a profile of ONNX Runtime (Chrome's trace format).
pub fn kernels(profile: &str) -> Result<Vec<Kernel>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        cat: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        args: Args,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Args {
        op_name: String,
        provider: String,
        input_type_shape: Vec<BTreeMap<String, Vec<i64>>>,
        output_type_shape: Vec<BTreeMap<String, Vec<i64>>>,
    }
    let seen = |tensors: Vec<BTreeMap<String, Vec<i64>>>| {
        let tensors = tensors.into_iter().flatten();
        tensors
            .map(|(datatype, shape)| Seen {
                is_integer: datatype.starts_with("int") || datatype.starts_with("uint") || datatype == "bool",
                rank: shape.len(),
            })
            .collect()
    };
    let events: Vec<Event> = serde_json::from_str(profile)?;
    Ok(events
        .into_iter()
        .filter(|event| event.cat == "Node" && event.name.ends_with("_kernel_time"))
        .map(|Event { name, args, .. }| Kernel {
            name,
            provider: args.provider,
            operator: args.op_name,
            inputs: seen(args.input_type_shape),
            outputs: seen(args.output_type_shape),
        })
        .collect())
}

#[cfg(test)]
mod tests;
