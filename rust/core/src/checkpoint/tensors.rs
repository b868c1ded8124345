//! The tensors of a checkpoint by name, in little memory: a large model has a hundred thousand, of
//! which few are not alike. Names lie one behind the other in one text, and what tensors have in
//! common stands once: 90,000 tensors take 9 MB, where a tree of strings and shapes took 22.

use std::collections::BTreeMap;

use safetensors::Dtype;

/// Where a tensor lies.
#[derive(Debug, Clone, Copy)]
pub struct TensorEntry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its place among the names of its checkpoint.
    pub number: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Sides, outermost first; empty for a scalar.
    pub shape: &'a [usize],
    /// Number of the shard in [`crate::checkpoint::Checkpoint::shards`].
    pub shard: usize,
    /// First byte, from the start of the shard.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl TensorEntry<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What many tensors of a checkpoint have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Element type.
    pub dtype: Dtype,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
    /// Number of the shard.
    pub shard: usize,
    /// Length in bytes.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    name: usize,
    length: u32,
    kind: u32,
    offset: u64,
}

/// All tensors of a checkpoint, sorted by name.
#[derive(Debug, Default)]
pub struct Tensors {
    names: String,
    rows: Vec<Row>,
    kinds: Vec<Kind>,
}

impl Tensors {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<TensorEntry<'_>> {
        let found = self.rows.binary_search_by(|row| self.name(row).cmp(name));
        found.ok().map(|number| self.entry(number))
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorEntry<'_>> {
        (0..self.len()).map(|number| self.entry(number))
    }

    /// What the tensors have in common, and for each by name the number of its kind.
    pub fn kinds(&self) -> (&[Kind], impl Iterator<Item = usize> + '_) {
        (&self.kinds, self.rows.iter().map(|row| row.kind as usize))
    }

    fn entry(&self, number: usize) -> TensorEntry<'_> {
        let row = &self.rows[number];
        let Kind { dtype, shape, shard, bytes } = &self.kinds[row.kind as usize];
        TensorEntry {
            name: self.name(row),
            number,
            dtype: *dtype,
            shape,
            shard: *shard,
            offset: row.offset,
            bytes: *bytes,
        }
    }

    fn name(&self, row: &Row) -> &str {
        &self.names[row.name..row.name + row.length as usize]
    }
}

/// Tensors as they are found, in any order.
#[derive(Debug, Default)]
pub(super) struct Found {
    tensors: Tensors,
    numbers: BTreeMap<Kind, u32>,
}

impl Found {
    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// One more, at a place of its shard.
    pub(super) fn push(&mut self, name: &str, kind: Kind, offset: u64) {
        let Tensors { names, rows, kinds } = &mut self.tensors;
        let kind = match self.numbers.get(&kind) {
            Some(number) => *number,
            None => {
                let number = kinds.len() as u32;
                kinds.push(kind.clone());
                self.numbers.insert(kind, number);
                number
            }
        };
        // A header has 100 MB at most, so has a name.
        rows.push(Row { name: names.len(), length: name.len() as u32, kind, offset });
        names.push_str(name);
    }

    /// All of them; where two have one name, that name and the later one's shard.
    pub(super) fn sorted(self) -> Result<Tensors, (String, usize)> {
        let mut found = self.tensors;
        let mut rows = std::mem::take(&mut found.rows);
        rows.sort_unstable_by(|a, b| found.name(a).cmp(found.name(b)));
        if let Some(twins) = rows.windows(2).find(|two| found.name(&two[0]) == found.name(&two[1]))
        {
            let shards = twins.iter().map(|row| found.kinds[row.kind as usize].shard);
            return Err((found.name(&twins[0]).to_owned(), shards.max().unwrap_or(0)));
        }
        rows.shrink_to_fit();
        found.rows = rows;
        found.names.shrink_to_fit();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(side: usize, shard: usize) -> Kind {
        Kind { dtype: Dtype::BF16, shape: vec![side], shard, bytes: 2 * side as u64 }
    }

    #[test]
    fn tensors_are_found_by_name_and_told_in_order() {
        let mut found = Found::default();
        for (name, kind, offset) in [
            ("b", kind(2, 0), 8),
            ("", kind(3, 1), 9),
            ("bb", kind(2, 0), 12),
            ("a", kind(2, 1), 1),
        ] {
            found.push(name, kind, offset);
        }
        let tensors = found.sorted().unwrap();
        let names: Vec<&str> = tensors.iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["", "a", "b", "bb"]);
        for name in names {
            assert_eq!(tensors.get(name).unwrap().name, name);
        }
        let entry = tensors.get("bb").unwrap();
        assert_eq!((entry.shape, entry.shard, entry.offset, entry.bytes), (&[2][..], 0, 12, 4));
        assert!(tensors.get("c").is_none());
        assert_eq!(tensors.kinds().0.len(), 3);
    }

    #[test]
    fn a_name_that_stands_twice_is_told_with_its_later_shard() {
        let mut found = Found::default();
        for shard in [0, 2, 1] {
            found.push(&format!("x{}", shard % 2), kind(1, shard), 8);
        }
        assert_eq!(found.sorted().unwrap_err(), ("x0".to_owned(), 2));
    }
}
