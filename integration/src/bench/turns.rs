//! Figures of several, measured in turn: what else the machine does comes and goes within seconds, and is to meet all alike.

use super::of_hundred;

/// In which order `rivals` are measured, turn by turn: each order as often as any other, where `turns` are a multiple of how many
/// orders there are. Who follows whom would tell otherwise.
pub fn orders(rivals: usize, turns: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..turns).map(move |turn| order(rivals, turn))
}

/// The `number`th order.
fn order(rivals: usize, mut number: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..rivals).collect();
    let mut order = Vec::with_capacity(rivals);
    while !left.is_empty() {
        let next = number % left.len();
        number /= left.len();
        order.push(left.remove(next));
    }
    order
}

/// How many times another's figures ours are: the middle one of what the turns say, each by itself.
pub(super) fn times(ours: &[f64], others: &[f64]) -> f64 {
    of_hundred(ours.iter().zip(others).map(|(ours, other)| ours / other).collect(), 50)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_orders_come_up_equally_often() {
        let all: Vec<Vec<usize>> = orders(3, 12).collect();
        let different: HashSet<&Vec<usize>> = all.iter().collect();
        assert_eq!(different.len(), 6);
        for one in different {
            assert_eq!(all.iter().filter(|other| *other == one).count(), 2);
        }
    }

    #[test]
    fn a_slow_second_tells_nothing() {
        assert_eq!(times(&[10.0, 5.0, 10.0], &[10.0, 5.0, 5.0]), 1.0);
    }
}
