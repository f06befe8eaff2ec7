use proptest::prelude::*;

use super::*;

fn numbers(shape: &[i64], first: u16) -> Tensor {
    let count = shape.iter().product::<i64>() as u16;
    let data: Vec<u8> = (first..first + count).flat_map(u16::to_le_bytes).collect();
    Tensor::new("x".into(), Datatype::Uint16, shape.to_vec(), data.into()).unwrap()
}

fn strings(shape: &[i64], texts: &[&str]) -> Tensor {
    let data: Vec<u8> =
        texts.iter().flat_map(|t| [&(t.len() as u32).to_le_bytes(), t.as_bytes()].concat()).collect();
    Tensor::new("s".into(), Datatype::Bytes, shape.to_vec(), data.into()).unwrap()
}

fn values(tensor: &Tensor) -> Vec<u16> {
    tensor.data().as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c)).collect()
}

#[test]
fn rows_follow_each_other_along_the_first_axis() {
    let whole = join(&[&numbers(&[1, 2], 0), &numbers(&[2, 2], 10)], 0).unwrap();
    assert_eq!((whole.shape.as_slice(), values(&whole)), ([3, 2].as_slice(), vec![0, 1, 10, 11, 12, 13]));
}

#[test]
fn an_inner_axis_is_interleaved() {
    let whole = join(&[&numbers(&[2, 1, 2], 0), &numbers(&[2, 2, 2], 10)], 1).unwrap();
    assert_eq!(whole.shape, [2, 3, 2]);
    assert_eq!(values(&whole), [0, 1, 10, 11, 12, 13, 2, 3, 14, 15, 16, 17]);
}

#[test]
fn strings_keep_their_lengths() {
    let parts = [strings(&[1, 2], &["a", ""]), strings(&[2, 2], &["bcd", "e", "f", "ghij"])];
    let whole = join(&[&parts[0], &parts[1]], 0).unwrap();
    assert_eq!(split(whole, 0, &[1, 2]).unwrap(), parts);
}

#[test]
fn an_output_that_does_not_follow_its_inputs_is_told() {
    let message = split(numbers(&[1, 4], 0), 0, &[1, 1]).unwrap_err();
    assert_eq!(message, "output \"x\" has shape [1, 4] for 2 rows along axis 0");
    assert!(split(numbers(&[4], 0), 1, &[1, 1]).is_err());
}

proptest! {
    #[test]
    fn what_was_joined_comes_apart_again(
        before in 0i64..3, after in 0i64..3, rows in prop::collection::vec(0usize..4, 1..5), axis in 0usize..2,
    ) {
        let shape = |rows: i64| if axis == 0 { vec![rows, before, after] } else { vec![before, rows, after] };
        let parts: Vec<Tensor> =
            rows.iter().enumerate().map(|(i, r)| numbers(&shape(*r as i64), 100 * i as u16)).collect();
        let whole = join(&parts.iter().collect::<Vec<_>>(), axis).unwrap();
        prop_assert_eq!(split(whole, axis, &rows).unwrap(), parts);
    }
}
