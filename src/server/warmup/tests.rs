use super::*;
use crate::protocol::Datatype;
use crate::server::engine::fake::fake;

fn loaded(shape: &[i64], results: &[Option<RunError>]) -> Loaded {
    let (runner, puppeteer) = fake();
    for result in results {
        puppeteer.results.send(result.clone()).unwrap();
    }
    let spec =
        |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Bytes, shape: shape.to_vec() };
    Loaded {
        input_axes: vec![],
        output_axes: vec![],
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        runners: vec![runner],
        device: "CPU".into(),
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
