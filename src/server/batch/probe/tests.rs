use super::*;

/// Floats in, floats out: `f` sees the whole run, one row after the other.
struct Function<F>(F);

impl<F: FnMut(&[f32], usize) -> Vec<f32> + Send> Runner for Function<F> {
    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, RunError> {
        let input = &inputs[0];
        if input.shape[1] < 2 {
            return Err(RunError::Refused("too short".into()));
        }
        let values: Vec<f32> = input.data().as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect();
        let outputs = (self.0)(&values, input.shape[1] as usize);
        let data: Vec<u8> = outputs.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = vec![(outputs.len() / input.shape[1] as usize) as i64, input.shape[1]];
        Ok(vec![Tensor::new("y".into(), Datatype::Fp32, shape, data.into()).unwrap()])
    }
}

fn proven(length: i64, f: impl FnMut(&[f32], usize) -> Vec<f32> + Send) -> Result<bool, Unproven> {
    let inputs = [TensorSpec { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, -1] }];
    let axes = BatchAxes { inputs: vec![0], outputs: vec![0] };
    prove(&mut Function(f), &Probe { inputs: &inputs, axes: &axes, length })
}

#[test]
fn rows_that_are_computed_apart_are_proven() {
    assert_eq!(proven(4, |x, _| x.iter().map(|v| v * 2.0).collect()), Ok(true));
}

#[test]
fn rounding_is_forgiven_and_told() {
    let nudge = |x: &[f32], length: usize| {
        x.iter().map(|v| v * (1.0 + 1e-6 * (x.len() / length) as f32)).collect::<Vec<_>>()
    };
    assert_eq!(proven(4, nudge), Ok(false));
}

#[test]
fn a_scale_that_is_taken_from_the_whole_run_is_found_out() {
    let normalised = |x: &[f32], _: usize| {
        let peak = x.iter().fold(0f32, |peak, v| peak.max(v.abs()));
        x.iter().map(|v| v / peak).collect::<Vec<_>>()
    };
    let Err(Unproven::Differs(why)) = proven(4, normalised) else { panic!("proven") };
    assert_eq!(why, "output \"y\" of a request is another when it shares a run with others");
}

#[test]
fn an_output_of_one_row_for_many_is_found_out() {
    let summed = |x: &[f32], length: usize| {
        x.chunks(length).fold(vec![0.0; length], |sum, row| sum.iter().zip(row).map(|(a, b)| a + b).collect())
    };
    assert!(matches!(proven(4, summed), Err(Unproven::Differs(why)) if why.contains("for 3 rows")));
}

#[test]
fn a_model_that_refuses_is_not_proven() {
    assert!(matches!(proven(1, |x, _| x.to_vec()), Err(Unproven::Refused(_))));
}

#[test]
fn made_up_values_differ_by_row_and_are_valid() {
    for datatype in Datatype::ALL {
        let (one, two) = (made_up(datatype, 16, 1), made_up(datatype, 16, 2));
        assert_ne!(one, two, "{datatype}");
        Tensor::new("x".into(), datatype, vec![16], one).unwrap();
    }
}

#[test]
fn half_precision_is_read_as_ieee_754_says() {
    for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f64.powi(-24)), (0x7bff, 65504.0)] {
        assert_eq!(half(bits), value);
    }
    assert!(half(0x7e00).is_nan());
}
