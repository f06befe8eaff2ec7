//! Which revision answers a request, and which of its pods. Pure: chance is an argument.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// 2^64 divided by the golden ratio: its multiples fall evenly between each other, however many there are, so that of
/// any hundred requests in a row a weight of 5 gets about five.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The index that the `ticket`-th request goes to. Entries of weight 0 get none. None: all weigh nothing.
pub fn by_weight(weights: impl Iterator<Item = u32> + Clone, ticket: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let place = u128::from(ticket.wrapping_mul(GOLDEN)) * u128::from(total);
    let place = (place >> 64) as u64;
    let mut before = 0;
    weights.enumerate().find_map(|(index, weight)| {
        before += u64::from(weight);
        (place < before).then_some(index)
    })
}

/// The better of two that chance names: nearly as even as the best of all, and a load that is out of date misleads
/// only some. `load`: of a pod that may be chosen. None: there is none.
pub fn of_two<T>(pods: &[T], load: impl Fn(&T) -> Option<usize>, random: u64) -> Option<&T> {
    let usable = pods.iter().filter(|pod| load(pod).is_some()).count();
    let nth = |n: usize| pods.iter().filter(|pod| load(pod).is_some()).nth(n);
    match usable {
        0 => None,
        1 => nth(0),
        _ => {
            let first = (random as u32) as usize % usable;
            let second = (first + 1 + (random >> 32) as usize % (usable - 1)) % usable;
            let (first, second) = (nth(first)?, nth(second)?);
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

/// Well mixed bits of a counter (splitmix64).
pub fn mixed(ticket: u64) -> u64 {
    let mut z = ticket.wrapping_mul(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
