use proptest::prelude::*;

use super::*;

#[test]
fn every_hundred_requests_in_a_row_are_split_as_the_weights_say() {
    for weights in [[90, 10, 0], [1, 99, 0], [50, 25, 25], [100, 0, 0]] {
        for start in [0, 17, 1 << 40, u64::MAX - 50] {
            let mut counts = [0i64; 3];
            for ticket in 0..100 {
                let index = by_weight(weights.into_iter(), start.wrapping_add(ticket)).unwrap();
                counts[index] += 1;
            }
            for (count, weight) in counts.iter().zip(weights) {
                assert!((count - i64::from(weight)).abs() <= 3, "{counts:?} of {weights:?} from {start}");
                assert!(weight > 0 || *count == 0);
            }
        }
    }
}

proptest! {
    #[test]
    fn an_index_is_one_that_weighs_something(weights in prop::collection::vec(0u32..=100, 0..16), ticket: u64) {
        match by_weight(weights.iter().copied(), ticket) {
            Some(index) => prop_assert!(weights[index] > 0),
            None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
        }
    }

    #[test]
    fn of_two_the_less_loaded_is_chosen(loads in prop::collection::vec(prop::option::of(0usize..100), 0..8), random: u64) {
        let usable = loads.iter().flatten().count();
        match of_two(&loads, |load| *load, random) {
            None => prop_assert_eq!(usable, 0),
            Some(chosen) => {
                let chosen = chosen.unwrap();
                // It was compared with another: never the most loaded alone.
                let busier = loads.iter().flatten().filter(|load| **load >= chosen).count();
                prop_assert!(usable == 1 || busier >= 2);
            }
        }
    }
}

#[test]
fn every_pod_is_chosen_when_all_are_idle() {
    let pods = [0, 1, 2, 3, 4];
    let mut counts = [0; 5];
    for ticket in 0..5000 {
        counts[*of_two(&pods, |_| Some(0), mixed(ticket)).unwrap()] += 1;
    }
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
}
