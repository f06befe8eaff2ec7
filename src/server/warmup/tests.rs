use super::*;
use crate::protocol::Datatype;
use crate::server::engine::Runner;
use crate::server::engine::fake::fake;

fn runner(results: &[Option<RunError>]) -> Box<dyn Runner> {
    let (runner, puppeteer) = fake();
    for result in results {
        puppeteer.results.send(result.clone()).unwrap();
    }
    runner
}

fn loaded(shape: &[i64], results: &[Option<RunError>]) -> Loaded {
    let spec =
        |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Bytes, shape: shape.to_vec() };
    Loaded {
        input_axes: vec![],
        output_axes: vec![],
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        runners: vec![runner(results)],
        another: None,
        device: "CPU".into(),
        graph_nodes: [("CPU".to_string(), 1)].into(),
        placement: None,
        note: None,
    }
}

fn refused() -> Option<RunError> {
    Some(RunError::Refused("too short".into()))
}

#[test]
fn longer_axes_are_tried_when_the_shortest_is_refused() {
    assert_eq!(warm_up(&mut loaded(&[-1], &[refused(), refused(), None])), Ok(WarmUp::Answered(16)));
}

#[test]
fn a_model_that_refuses_every_made_up_input_serves_and_says_so() {
    let said = warm_up(&mut loaded(&[2], &[refused()])).unwrap();
    let expected = "not warmed up: the model refused inputs of zeros: too short";
    assert_eq!(said, WarmUp::Refused(expected.into()));
    let WarmUp::Refused(said) = warm_up(&mut loaded(&[1 << 40], &[])).unwrap() else { panic!("it answered") };
    assert!(said.ends_with("input \"x\" is too large to make up"), "{said}");
}

#[test]
fn a_session_that_can_not_run_at_all_is_an_error() {
    for error in [RunError::Poisoned("CUDA".into()), RunError::OutOfMemory("bad_alloc".into())] {
        assert_eq!(warm_up(&mut loaded(&[-1], &[Some(error.clone())])), Err(error));
    }
}

#[test]
fn a_second_session_is_warmed_up_and_does_without_when_there_is_no_memory() {
    let add = |second: Option<RunError>| {
        let mut loaded = loaded(&[-1], &[]);
        loaded.another = Some(Box::new(move || Ok(runner(&[second]))));
        let added = add_session(&mut loaded, &WarmUp::Answered(1));
        (added.map_err(|e| e.reason), loaded.runners.len(), loaded.note)
    };
    assert_eq!(add(None), (Ok(()), 2, None));
    let (added, runners, note) = add(Some(RunError::OutOfMemory("CUDA".into())));
    assert_eq!((added, runners), (Ok(()), 1));
    assert!(note.unwrap().contains("one copy of the model"));
    let (added, ..) = add(Some(RunError::Poisoned("CUDA".into())));
    assert_eq!(added, Err(Reason::ExecutionProviderUnavailable));

    let mut loaded = loaded(&[-1], &[]);
    let error = LoadError { reason: Reason::InsufficientGpuMemory, message: String::new() };
    loaded.another = Some(Box::new(move || Err(error)));
    add_session(&mut loaded, &WarmUp::Refused(String::new())).unwrap();
    assert_eq!((loaded.runners.len(), loaded.note.is_some()), (1, true));
}
