use std::f64::consts::FRAC_1_SQRT_2;

use bytes::Bytes;

use super::*;

fn named(name: &str, datatype: Datatype, shape: &[i64], data: Vec<u8>) -> Vec<Tensor> {
    vec![Tensor::new(name.into(), datatype, shape.to_vec(), Bytes::from(data)).unwrap()]
}

fn tensor(datatype: Datatype, shape: &[i64], data: Vec<u8>) -> Vec<Tensor> {
    named("y", datatype, shape, data)
}

fn floats(shape: &[i64], values: &[f32]) -> Vec<Tensor> {
    tensor(Datatype::Fp32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn strings(values: &[&str]) -> Vec<Tensor> {
    let element = |v: &&str| [&(v.len() as u32).to_le_bytes()[..], v.as_bytes()].concat();
    tensor(Datatype::Bytes, &[values.len() as i64], values.iter().flat_map(element).collect())
}

fn one(a: &[Tensor], b: &[Tensor]) -> Difference {
    let found = compare(a, b, MAX_ELEMENTS).unwrap();
    assert_eq!(found.len(), 1);
    found[0].1
}

fn near(difference: Difference, absolute: f64, relative: f64, cosine: f64, agreeing: (u64, u64), nan: u64) {
    let close = |x: f64, y: f64| x == y || (x - y).abs() <= 1e-6 * y.abs();
    let Difference { max_absolute, max_relative, .. } = difference;
    let told = format!("{difference:?}");
    assert!(close(max_absolute, absolute), "absolute {absolute}: {told}");
    assert!(close(max_relative, relative), "relative {relative}: {told}");
    assert!((difference.cosine - cosine).abs() < 1e-6, "cosine {cosine}: {told}");
    assert_eq!(
        (difference.agreeing, difference.rows, difference.nan),
        (agreeing.0, agreeing.1, nan),
        "{told}"
    );
}

#[test]
fn floats_are_compared_by_element_and_by_row() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let d = |shape: &[i64], a: &[f32], b: &[f32]| one(&floats(shape, a), &floats(shape, b));
    near(d(&[2, 2], &[1.0, 2.0, 4.0, 3.0], &[1.0, 2.0, 4.0, 3.0]), 0.0, 0.0, 1.0, (2, 2), 0);
    // The second row's largest is another.
    near(d(&[2, 2], &[1.0, 2.0, 4.0, 3.0], &[1.0, 2.0, 3.0, 4.0]), 1.0, 0.25, 29.0 / 30.0, (1, 2), 0);
    near(d(&[2], &[0.0, 1.0], &[0.5, 1.0]), 0.5, 1.0, 0.894_427_19, (1, 1), 0);
    near(d(&[2], &[1.0, -1.0], &[-1.0, 1.0]), 2.0, 2.0, -1.0, (0, 1), 0);
    // Of two that are the largest together, either will do.
    near(d(&[2], &[1.0, 1.0], &[0.0, 1.0]), 1.0, 1.0, FRAC_1_SQRT_2, (1, 1), 0);
    near(d(&[2], &[0.0, 1.0], &[1.0, 1.0]), 1.0, 1.0, FRAC_1_SQRT_2, (1, 1), 0);
    near(d(&[2], &[0.0, 0.0], &[0.0, 0.0]), 0.0, 0.0, 1.0, (1, 1), 0);
    near(d(&[2], &[0.0, 0.0], &[0.0, 1.0]), 1.0, 1.0, 0.0, (1, 1), 0);
    // NaN on both sides is the same answer.
    near(d(&[2], &[NAN, 1.0], &[NAN, 1.0]), 0.0, 0.0, 1.0, (1, 1), 0);
    near(d(&[2], &[NAN, 1.0], &[2.0, 1.0]), 0.0, 0.0, 1.0, (0, 1), 1);
    near(d(&[2], &[INF, 1.0], &[INF, 1.0]), 0.0, 0.0, 1.0, (1, 1), 0);
    near(d(&[2], &[INF, 1.0], &[3.0, 1.0]), f64::MAX, 2.0, 1.0, (1, 1), 0);
    near(d(&[2], &[INF, 1.0], &[-INF, 1.0]), f64::MAX, 2.0, 1.0, (0, 1), 0);
    // Alone in its row, the largest is the same one.
    near(d(&[2, 1], &[1.0, 2.0], &[2.0, 1.0]), 1.0, 0.5, 0.8, (2, 2), 0);
    near(d(&[], &[1.0], &[1.5]), 0.5, 1.0 / 3.0, 1.0, (1, 1), 0);
    near(d(&[0, 3], &[], &[]), 0.0, 0.0, 1.0, (0, 0), 0);
    near(d(&[2], &[f32::MAX, 0.0], &[f32::MAX, 1.0]), 1.0, 1.0, 1.0, (1, 1), 0);
}

#[test]
fn every_datatype_is_read_as_it_is_written() {
    let number = |datatype: Datatype, value: u8| -> Vec<u8> {
        let value = i64::from(value);
        match datatype {
            Datatype::Fp16 => [0x3c00u16, 0x4000][value as usize].to_le_bytes().to_vec(),
            Datatype::Bf16 => [0x3f80u16, 0x4000][value as usize].to_le_bytes().to_vec(),
            Datatype::Fp32 => (value as f32 + 1.0).to_le_bytes().to_vec(),
            Datatype::Fp64 => (value as f64 + 1.0).to_le_bytes().to_vec(),
            Datatype::Bool => vec![value as u8],
            _ => (value + 1).to_le_bytes()[..datatype.size().unwrap()].to_vec(),
        }
    };
    for datatype in Datatype::ALL.into_iter().filter(|d| *d != Datatype::Bytes) {
        let (one_, two) = (number(datatype, 0), number(datatype, 1));
        let (a, b) = (tensor(datatype, &[1], one_), tensor(datatype, &[1], two));
        let relative = if datatype == Datatype::Bool { 1.0 } else { 0.5 };
        let cosine = if datatype == Datatype::Bool { 0.0 } else { 1.0 };
        let float = matches!(datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64);
        near(one(&a, &b), 1.0, relative, cosine, (u64::from(float), 1), 0);
        near(one(&a, &a), 0.0, 0.0, if datatype == Datatype::Bool { 1.0 } else { cosine }, (1, 1), 0);
    }
}

#[test]
fn integers_beyond_a_floats_precision_are_told_apart() {
    let value = |v: i64| tensor(Datatype::Int64, &[1], v.to_le_bytes().to_vec());
    let difference = one(&value(i64::MAX), &value(i64::MAX - 1));
    assert_eq!((difference.agreeing, difference.rows), (0, 1));
}

#[test]
fn doubles_whose_squares_are_too_large_have_a_direction() {
    let value = |v: [f64; 2]| tensor(Datatype::Fp64, &[2], v.map(f64::to_le_bytes).concat());
    near(one(&value([1e300, 0.0]), &value([1e300, 1e300])), 1e300, 1.0, FRAC_1_SQRT_2, (1, 1), 0);
}

#[test]
fn strings_are_equal_or_not() {
    near(one(&strings(&["a", "b", ""]), &strings(&["a", "c", ""])), 1.0, 1.0, 2.0 / 3.0, (2, 3), 0);
    near(one(&strings(&["a"]), &strings(&["a"])), 0.0, 0.0, 1.0, (1, 1), 0);
    near(one(&strings(&[]), &strings(&[])), 0.0, 0.0, 1.0, (0, 0), 0);
}

#[test]
fn another_form_is_a_sentence() {
    let a = floats(&[1, 2], &[1.0, 2.0]);
    for (b, message) in [
        (vec![], "output \"y\" is missing"),
        (floats(&[2, 1], &[1.0, 2.0]), "output \"y\" is FP32 [2,1] instead of FP32 [1,2]"),
        (tensor(Datatype::Int8, &[1, 2], vec![1, 2]), "output \"y\" is INT8 [1,2] instead of FP32 [1,2]"),
    ] {
        assert_eq!(compare(&a, &b, MAX_ELEMENTS).unwrap_err(), message);
    }
    // What only the candidate says breaks nobody.
    assert!(compare(&[], &a, MAX_ELEMENTS).unwrap().is_empty());
}

#[test]
fn no_more_elements_are_looked_at_than_allowed() {
    let (mut a, mut b) = (floats(&[3, 2], &[0.0; 6]), floats(&[3, 2], &[0.0, 0.0, 0.0, 0.0, 0.0, 9.0]));
    a.extend(named("z", Datatype::Uint8, &[1], vec![0]));
    b.extend(named("z", Datatype::Uint8, &[1], vec![1]));
    let of = |elements| {
        let found = compare(&a, &b, elements).unwrap();
        found.into_iter().map(|(name, d)| (name, d.rows, d.max_absolute)).collect::<Vec<_>>()
    };
    assert_eq!(of(7), [("y", 3, 9.0), ("z", 1, 1.0)]);
    assert_eq!(of(6), [("y", 3, 9.0)]);
    // Whole rows, and the rest is the next output's.
    assert_eq!(of(5), [("y", 2, 0.0), ("z", 1, 1.0)]);
    // Part of the first row.
    assert_eq!(of(1), [("y", 0, 0.0)]);
    assert!(of(0).is_empty());
}
