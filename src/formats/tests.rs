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

    assert!(assignments.fetch_only.is_empty());

    let report: GatewayReport = serde_json::from_str(
        r#"{"formatVersion":1,"routes":{"fraud":{"uid":"u","generation":3}},"held":{"fraud":1},"future":1}"#,
    )
    .unwrap();
    assert!(report.trials.is_empty(), "a gateway that counts nothing yet");
    let trial = r#"{"process":7,"route":"u","candidate":8,"attempt":1,"requests":2,"errors":1,"latencies":{"-3":1},"independent":0.9}"#;
    let trial: Trial = serde_json::from_str(trial).unwrap();
    assert_eq!((trial.requests, trial.latencies[&-3]), (2, 1));

    let state: PodState = serde_json::from_str(
        r#"{"formatVersion":1,"ready":false,"revisions":[{"deployment":"fraud","revision":"fraud-r8",
            "phase":"Defrosting","seconds":{"fetch":1.5}}]}"#,
    )
    .unwrap();
    assert_eq!(state.revisions[0].phase, RevisionPhase::Unknown);
    assert!(!state.fetches_only);
    let report: GatewayReport = serde_json::from_str(
        r#"{"formatVersion":1,"routes":{"fraud":{"uid":"u","generation":3}},"trials":{"fraud":{"process":1,"route":"u","candidate":8,
            "attempt":1,"latencies":{"-3":4},"shadow":{"compared":2,"mismatched":1,"failed":1,"dropped":1,"example":"e","future":1,"outputs":{"score":{"samples":2,
            "maxAbsolute":0.5,"maxRelative":1e-3,"minCosine":0.75,"rows":4,"agreeing":3,"nan":1}}}}}}"#,
    )
    .unwrap();
    assert_eq!(report.trials["fraud"].shadow.as_ref().unwrap().outputs["score"].agreeing, 3);
    let announcement = r#"{"formatVersion":1,"pod":"fraud-r8-x","uid":"u","ip":"fd00::7","future":1}"#;
    let announcement: Announcement = serde_json::from_str(announcement).unwrap();
    assert_eq!(announcement, Announcement::new("fraud-r8-x".into(), "u".into(), "fd00::7".parse().unwrap()));
    let old: GatewayReport = serde_json::from_str(r#"{"formatVersion":1}"#).unwrap();
    assert!(old.trials.is_empty());
}

#[test]
fn what_two_gateways_found_is_the_worst_of_both() {
    let output = |samples, max_absolute, min_cosine| OutputReport {
        samples,
        max_absolute,
        min_cosine,
        rows: samples,
        agreeing: 1,
        ..Default::default()
    };
    let report = |compared, output| ShadowReport {
        compared,
        outputs: [("score".to_string(), output)].into(),
        ..Default::default()
    };
    let mut both = report(3, output(3, 0.5, 0.9));
    both.add(&ShadowReport { example: Some("e".into()), ..report(2, output(2, 0.25, 0.5)) });
    let score = both.outputs["score"];
    assert_eq!((both.compared, both.example.as_deref()), (5, Some("e")));
    assert_eq!((score.samples, score.max_absolute, score.min_cosine), (5, 0.5, 0.5));
    assert_eq!((score.rows, score.agreeing), (5, 2));
    for number in 0..100 {
        both.add_output(&number.to_string(), OutputReport::default());
    }
    assert_eq!(both.outputs.len(), 64);
}

/// A server from before there was `fetchOnly` reads `assignments` alone.
#[test]
fn what_is_only_fetched_is_apart_from_what_runs() {
    let entry = |number: u64, port: u16| {
        format!(
            r#"{{"deployment":"fraud","revision":"fraud-r{number}","modelVersion":"{number}","port":{port},
                "source":{{"uri":"s3://m","immutable":true,"files":[]}}}}"#
        )
    };
    let text = format!(
        r#"{{"formatVersion":1,"assignments":[{}],"fetchOnly":[{}]}}"#,
        entry(7, 8080),
        entry(8, 8082)
    );
    let document: Assignments = serde_json::from_str(&text).unwrap();
    assert_eq!((document.assignments.len(), document.fetch_only[0].model_version.as_str()), (1, "8"));
    let annotations = [(Assignments::ANNOTATION.to_string(), text)].into();
    let slots = Slot::assigned(&Default::default(), &annotations);
    let slot = |revision, port, fetch_only| Slot { revision, port, fetch_only };
    assert_eq!(slots, [slot(7, 8080, false), slot(8, 8082, true)]);
    for (serves, expected) in [(None, vec![7]), (Some("r7.r8"), vec![7]), (Some(""), vec![])] {
        let labels = serves.map(|serves| (Assignments::SERVES.to_string(), serves.to_string()));
        let serving = Slot::serving(&labels.into_iter().collect(), &slots);
        assert_eq!(serving.iter().map(|slot| slot.revision).collect::<Vec<_>>(), expected, "{serves:?}");
    }
}
