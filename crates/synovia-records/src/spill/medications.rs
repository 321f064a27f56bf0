//! Medication resources, kept for those that refer to them.

use std::collections::HashMap;

use super::item::Place;

/// A formulary has thousands.
const MAX_MEDICATIONS: usize = 500_000;

/// What a medication is called: its id, or in one file a `fullUrl`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    file: Option<u64>,
    key: String,
}

/// Codes and displays of Medication resources by name. Of two with one name the first of the input is kept, and of more than
/// [`MAX_MEDICATIONS`] the first: the same for any number of threads.
#[derive(Debug, Default)]
pub(crate) struct Medications {
    by_name: HashMap<Name, (Place, String, String)>,
    /// How many were added.
    n_added: u64,
    /// Whether some are no longer there.
    any_pruned: bool,
}

impl Medications {
    /// Adds what stands at `at`, under its id or, where `is_url`, under its `fullUrl`.
    pub(super) fn add(&mut self, key: &str, is_url: bool, at: Place, code: String, display: String) {
        self.keep(Name { file: is_url.then_some(at.file), key: key.to_owned() }, (at, code, display));
        self.n_added += 1;
    }

    fn keep(&mut self, name: Name, new: (Place, String, String)) {
        let found = self.by_name.entry(name).or_insert_with(|| new.clone());
        if new.0 < found.0 {
            *found = new;
        }
    }

    /// Adds those of another part of the input.
    pub(crate) fn merge(&mut self, other: Self) {
        self.n_added += other.n_added;
        for (name, medication) in other.by_name {
            self.keep(name, medication);
        }
        if self.by_name.len() > 2 * MAX_MEDICATIONS {
            self.prune(MAX_MEDICATIONS);
        }
    }

    /// Keeps the first `most` of the input.
    fn prune(&mut self, most: usize) {
        let mut places: Vec<Place> = self.by_name.values().map(|(place, ..)| *place).collect();
        if places.len() > most {
            let (_, end, _) = places.select_nth_unstable(most);
            let end = *end;
            self.by_name.retain(|_, (place, ..)| *place < end);
            self.any_pruned = true;
        }
    }

    /// To be called when all are added: how many were not kept.
    pub(crate) fn finish(&mut self) -> u64 {
        self.prune(MAX_MEDICATIONS);
        if self.any_pruned { self.n_added - self.by_name.len() as u64 } else { 0 }
    }

    /// Code and display of what a resource of `file` refers to by `key`.
    pub(crate) fn get(&self, key: &str, file: u64) -> Option<(&str, &str)> {
        let of = |file: Option<u64>| self.by_name.get(&Name { file, key: key.to_owned() });
        of(Some(file)).or_else(|| of(None)).map(|(_, code, display)| (code.as_str(), display.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(number: u64) -> Place {
        Place { file: 0, number, part: 0 }
    }

    #[test]
    fn the_first_of_the_input_are_kept_in_whatever_order_they_come() {
        let of = |numbers: &[u64]| {
            let mut all = Medications::default();
            for &k in numbers {
                let mut one = Medications::default();
                one.add(&format!("m{}", k % 5), false, at(k), k.to_string(), String::new());
                all.merge(one);
                all.prune(3);
            }
            (0..5).map(|k| all.get(&format!("m{k}"), 0).map(|(code, _)| code.to_owned())).collect::<Vec<_>>()
        };
        let first = [None, Some("1"), Some("2"), Some("3"), None].map(|code| code.map(str::to_owned));
        for order in [[1, 2, 3, 5, 6, 7, 9], [9, 7, 6, 5, 3, 2, 1], [6, 9, 1, 7, 2, 5, 3]] {
            assert_eq!(of(&order), first);
        }
    }
}
