use super::*;

#[test]
fn a_long_rest_is_told_in_ever_coarser_units() {
    let told = [3.4, 119.0, 120.0, 7_199.0, 7_200.0, 172_799.0, 172_800.0].map(lasting);
    assert_eq!(told, ["3 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
}
