//! Numbered places for a worker's connections. A place is used again; its generation tells the uses apart, so that what was meant for a
//! connection never reaches its successor.

/// Places and what stands in them.
pub(super) struct Slots<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    thing: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T: Clone> Slots<T> {
    /// Takes a place; `make` gets its number and generation.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32, u32) -> T) -> T {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, thing: None });
            // A worker has fewer sockets than there are file descriptors, far fewer than 2^32.
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        let thing = make(slot, place.generation);
        place.thing = Some(thing.clone());
        thing
    }

    /// What stands there, if it is still that use of the place.
    pub(super) fn get(&self, slot: u32, generation: u32) -> Option<&T> {
        self.places.get(slot as usize).filter(|place| place.generation == generation)?.thing.as_ref()
    }

    /// What stands there now, whichever use it is.
    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        self.places.get(slot as usize)?.thing.as_ref()
    }

    /// Frees the place, if it is still that use of it.
    pub(super) fn remove(&mut self, slot: u32, generation: u32) -> Option<T> {
        let place = self.places.get_mut(slot as usize).filter(|place| place.generation == generation)?;
        let thing = place.thing.take()?;
        self.free.push(slot);
        Some(thing)
    }

    /// How many places there are, free ones included.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// What stands in the places of that range.
    pub(super) fn range(&self, from: usize, count: usize) -> impl Iterator<Item = &T> {
        self.places.iter().skip(from).take(count).filter_map(|place| place.thing.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_used_again_is_another() {
        let mut slots = Slots::default();
        let (slot, first) = slots.insert(|slot, generation| (slot, generation));
        assert!(slots.remove(slot, first).is_some());
        let (again, second) = slots.insert(|slot, generation| (slot, generation));
        assert_eq!(slot, again);
        assert!(slots.get(slot, first).is_none() && slots.remove(slot, first).is_none());
        assert!(slots.get(slot, second).is_some());
        assert_eq!((slots.places(), slots.range(0, 10).count()), (1, 1));
    }
}
