use super::*;

fn resolved(files: usize, tensors: usize) -> Resolved {
    let signature = |i: usize| TensorSignature {
        name: format!("tensor_number_{i}_{:x}", i.wrapping_mul(2654435761)),
        datatype: "FP32".into(),
        shape: Some(vec![Dim::Dynamic("batch".into()), Dim::Fixed(i as i64)]),
    };
    Resolved {
        source: PinnedSource {
            request: SourceRequest {
                uri: "s3://models/fraud/8".into(),
                digest: None,
                s3: Some(S3Settings { endpoint: Some("http://s3:7070".into()), region: None }),
                hf: None,
                insecure_http: false,
                secret_name: Some("store".into()),
                ca_bundle_name: None,
            },
            files: (0..files)
                .map(|i| PinnedFile {
                    path: format!("part-{i}"),
                    size: 1 << 20,
                    pin: Some(Pin::Etag(format!(
                        "{:032x}",
                        (i as u128 + 1).wrapping_mul(0x9e3779b97f4a7c15f39cc0605cedc835)
                    ))),
                })
                .collect(),
            immutable: true,
            sha256: None,
        },
        graph: GraphSummary {
            ir_version: 8,
            opsets: [("ai.onnx".to_string(), 17)].into(),
            inputs: (0..tensors).map(signature).collect(),
            outputs: (0..tensors).map(signature).collect(),
            ..Default::default()
        },
    }
}

#[test]
fn a_report_survives_the_termination_message() {
    let report = ResolveReport::Resolved(Box::new(resolved(1, 3)));
    let text = report.encode().unwrap();
    assert!(text.len() <= 4096);
    assert_eq!(ResolveReport::decode(&text).unwrap(), report);
}

#[test]
fn a_large_signature_is_cut_and_marked_and_the_pin_is_whole() {
    let whole = resolved(20, 2000);
    let text = ResolveReport::Resolved(Box::new(whole.clone())).encode().unwrap();
    assert!(text.len() <= 4096, "{} bytes", text.len());
    let ResolveReport::Resolved(back) = ResolveReport::decode(&text).unwrap() else { panic!("{text}") };
    assert!(back.graph.truncated);
    assert_eq!(back.source, whole.source);
}

#[test]
fn more_files_than_a_report_can_name_is_an_error_that_counts_them() {
    let error = ResolveReport::Resolved(Box::new(resolved(1000, 1))).encode().unwrap_err();
    assert!(error.to_string().starts_with("the source names too many files: 1000 files"), "{error}");
}

#[test]
fn a_failure_is_plain_text_for_people() {
    let report =
        ResolveReport::Failed { reason: "SourceNotFound".into(), message: "s3://a/b: no such key".into() };
    assert_eq!(report.encode().unwrap(), "SourceNotFound: s3://a/b: no such key");
    assert_eq!(ResolveReport::decode("SourceNotFound: s3://a/b: no such key\n").unwrap(), report);
}

#[test]
fn a_long_failure_is_cut_at_a_character() {
    let report = ResolveReport::Failed { reason: "ModelInvalid".into(), message: "ü".repeat(4096) };
    let text = report.encode().unwrap();
    assert!(text.len() <= 4096);
    assert!(matches!(ResolveReport::decode(&text).unwrap(), ResolveReport::Failed { .. }));
}

#[test]
fn what_is_no_report_is_an_error_not_a_panic() {
    for text in
        ["", "panicked at src/x.rs", "modelwright.dev/resolved/v1:!!", "modelwright.dev/resolved/v1:AAAA"]
    {
        assert!(ResolveReport::decode(text).is_err(), "{text:?}");
    }
}

#[test]
fn documents_of_shipped_versions_still_read() {
    let assignments: Assignments = serde_json::from_str(
        r#"{"formatVersion":1,"assignments":[{"deployment":"fraud","revision":"fraud-r8","modelVersion":"8","port":8080,
            "source":{"uri":"s3://models/fraud/8/model.onnx","immutable":true,"insecureHTTP":true,
            "files":[{"path":"model.onnx","size":12,"pin":{"versionId":"3sL4"}}],"future":"field"}}],"future":1}"#,
    )
    .unwrap();
    let source = &assignments.assignments[0].source;
    assert_eq!(source.version(), Some("3sL4"));
    assert!(source.request.insecure_http);

    let state: PodState = serde_json::from_str(
        r#"{"formatVersion":1,"ready":false,"revisions":[{"deployment":"fraud","revision":"fraud-r8",
            "phase":"Defrosting","seconds":{"fetch":1.5}}]}"#,
    )
    .unwrap();
    assert_eq!(state.revisions[0].phase, RevisionPhase::Unknown);
}
