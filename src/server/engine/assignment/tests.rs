use super::*;

const CUDA: &str = "CUDAExecutionProvider";

fn node(provider: &str, operator: &str) -> Node {
    Node { provider: provider.into(), domain: String::new(), operator: operator.into() }
}

const INDEX: Seen = Seen { is_integer: true, rank: 0 };
const SHAPE: Seen = Seen { is_integer: true, rank: 1 };
const EMBEDDING: Seen = Seen { is_integer: false, rank: 2 };

fn kernel(name: &str, operator: &str, inputs: &[Seen], outputs: &[Seen]) -> Kernel {
    Kernel {
        name: name.into(),
        provider: CPU.into(),
        operator: operator.into(),
        inputs: inputs.to_vec(),
        outputs: outputs.to_vec(),
    }
}

/// A model whose shapes are computed on the CPU, as CUDA does it.
fn graph() -> Vec<Node> {
    let mut nodes = vec![node(CUDA, "MatMul"); 4];
    nodes.extend([node(CPU, "Shape"), node(CPU, "Gather"), node(CPU, "Concat")]);
    nodes
}

fn shapes() -> Vec<Kernel> {
    vec![
        kernel("s", "Shape", &[EMBEDDING], &[SHAPE]),
        kernel("g", "Gather", &[SHAPE, INDEX], &[INDEX]),
        kernel("c", "Concat", &[SHAPE, SHAPE], &[SHAPE]),
    ]
}

#[test]
fn nodes_are_counted_by_the_names_that_users_know() {
    let mut nodes = graph();
    nodes.push(node("TensorrtExecutionProvider", "Conv"));
    nodes.push(node("OpenVINOExecutionProvider", "Conv"));
    let expected = [("CPU", 3), ("CUDA", 4), ("OpenVINO", 1), ("TensorRT", 1)];
    assert_eq!(counts(&nodes), expected.map(|(name, count)| (name.to_string(), count)).into());
    assert_eq!(device(&nodes).as_deref(), Some("CUDA"));
    assert_eq!(device(&[]), None);
}

#[test]
fn shapes_may_be_computed_on_the_cpu_unless_that_is_forbidden() {
    let (nodes, kernels) = (graph(), shapes());
    assert_eq!(complaint("CUDA", CpuFallback::ShapeOpsOnly, &nodes, Some(&kernels)), None);
    assert_eq!(complaint("CUDA", CpuFallback::Allow, &nodes, None), None);
    assert_eq!(
        complaint("CUDA", CpuFallback::Forbid, &nodes, Some(&kernels)).unwrap(),
        "the model was to run on CUDA, and ONNX Runtime leaves 3 of its 7 nodes to the CPU (counted before late \
         fusions), of which runtime.cpuFallback: Forbid does not accept Concat 1, Gather 1, Shape 1: export the model \
         without them, add an execution provider that has them, or set runtime.cpuFallback: Allow"
    );
}

#[test]
fn a_gather_of_an_embedding_is_no_shape() {
    let mut kernels = shapes();
    // Twice the same node: the warm-up tried two lengths.
    for _ in 0..2 {
        kernels.push(kernel("e", "Gather", &[EMBEDDING, SHAPE], &[EMBEDDING]));
    }
    let offenders = offenders(CpuFallback::ShapeOpsOnly, &graph(), Some(&kernels));
    assert_eq!(offenders, [("Gather".to_string(), 1)].into());
}

#[test]
fn integers_of_rank_two_are_data() {
    let tokens = Seen { is_integer: true, rank: 2 };
    for (operator, inputs, outputs) in
        [("Cast", [tokens], [tokens]), ("Unsqueeze", [SHAPE], [tokens]), ("Slice", [tokens], [SHAPE])]
    {
        let kernels = [kernel("k", operator, &inputs, &outputs)];
        let offenders = offenders(CpuFallback::ShapeOpsOnly, &graph(), Some(&kernels));
        assert_eq!(offenders.keys().collect::<Vec<_>>(), [operator]);
    }
    let scales = kernel("k", "Cast", &[SHAPE], &[Seen { is_integer: false, rank: 1 }]);
    assert!(computes_a_shape(&scales));
}

#[test]
fn other_operators_are_named_even_when_they_did_not_run() {
    let mut nodes = graph();
    nodes.extend([node(CPU, "NonMaxSuppression"), node(CPU, "Mul"), node(CPU, "Mul")]);
    nodes.push(Node { domain: "com.example".into(), ..node(CPU, "Concat") });
    let text = complaint("CUDA", CpuFallback::ShapeOpsOnly, &nodes, Some(&shapes())).unwrap();
    assert!(text.contains("does not accept Mul 2, Concat 1, NonMaxSuppression 1: export"), "{text}");
}

#[test]
fn a_fusion_on_the_cpu_is_named_as_it_ran() {
    let mut kernels = shapes();
    kernels.push(kernel("f", "FusedMatMul", &[EMBEDDING], &[EMBEDDING]));
    kernels.push(Kernel { provider: CUDA.into(), ..kernel("m", "MatMul", &[EMBEDDING], &[EMBEDDING]) });
    let offenders = offenders(CpuFallback::ShapeOpsOnly, &graph(), Some(&kernels));
    assert_eq!(offenders, [("FusedMatMul".to_string(), 1)].into());
}

#[test]
fn what_was_not_seen_to_work_on_shapes_is_not_believed() {
    let text = complaint("CUDA", CpuFallback::ShapeOpsOnly, &graph(), None).unwrap();
    assert!(text.contains("does not accept Concat 1, Gather 1; the model refused inputs of zeros"), "{text}");
    let shapes_alone = [node(CUDA, "MatMul"), node(CPU, "Shape")];
    assert_eq!(complaint("CUDA", CpuFallback::ShapeOpsOnly, &shapes_alone, None), None);
}

#[test]
fn a_long_list_is_cut() {
    let nodes: Vec<Node> = (0..12).map(|i| node(CPU, &format!("Op{i:02}"))).collect();
    let text = complaint("CUDA", CpuFallback::Forbid, &nodes, None).unwrap();
    assert!(text.contains("Op09 1, and 2 more operators: export"), "{text}");
}

/// The original is ONNX Runtime 1.31's, shortened.
#[test]
fn a_profile_tells_what_ran_and_on_what() {
    let profile = r#"[
        {"cat":"Session","pid":1,"tid":2,"dur":3,"ts":4,"ph":"X","name":"model_loading_uri","args":{}},
        {"cat":"Node","pid":1,"tid":2,"dur":3,"ts":4,"ph":"X","name":"Gather_1_kernel_time","args":{
            "op_name":"Gather","provider":"CPUExecutionProvider","node_index":"1","output_size":"8",
            "input_type_shape":[{"int64":[2]},{"int64":[]}],"output_type_shape":[{"float16":[4,8]}]}},
        {"cat":"Node","pid":1,"tid":2,"dur":3,"ts":4,"ph":"X","name":"SequentialExecutor::Execute"}
    ]"#;
    let float = Seen { is_integer: false, rank: 2 };
    assert_eq!(
        kernels(profile).unwrap(),
        [kernel("Gather_1_kernel_time", "Gather", &[SHAPE, INDEX], &[float])]
    );
    assert!(kernels("[{").is_err());
}

#[test]
fn a_policy_has_one_of_three_names() {
    assert_eq!("Forbid".parse(), Ok(CpuFallback::Forbid));
    assert!("forbid".parse::<CpuFallback>().is_err());
}
