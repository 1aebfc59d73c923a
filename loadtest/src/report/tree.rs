//! JSON as it is read for a page: the members of an object stay in the order in which the result wrote them, which is the order in which
//! they make sense.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Nothing,
    Truth(bool),
    Whole(u64),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// A member of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Any number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// A list of pairs of numbers, if that is what it is.
    pub fn points(&self) -> Option<Vec<(f64, f64)>> {
        let Self::List(items) = self else { return None };
        let point = |item: &Self| match item.items() {
            [x, y] => x.number().zip(y.number()),
            _ => None,
        };
        items.iter().map(point).collect()
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Grow)
    }
}

struct Grow;

impl<'de> Visitor<'de> for Grow {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Tree, E> {
        Ok(Tree::Truth(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(u64::try_from(number).map_or(Tree::Number(number as f64), Tree::Whole))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Tree::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let tree: Tree = serde_json::from_str(r#"{"z":1,"a":[-2,0.5,null,true,"x"],"m":{}}"#).expect("JSON");
        let list =
            vec![Tree::Number(-2.0), Tree::Number(0.5), Tree::Nothing, Tree::Truth(true), Tree::Text("x".into())];
        let expected =
            [("z".into(), Tree::Whole(1)), ("a".into(), Tree::List(list)), ("m".into(), Tree::Object(vec![]))];
        assert_eq!(tree, Tree::Object(expected.into()));
    }

    #[test]
    fn only_pairs_of_numbers_are_points() {
        let points = |text| serde_json::from_str::<Tree>(text).expect("JSON").points();
        assert_eq!(points("[[1,2.5],[3,4]]"), Some(vec![(1.0, 2.5), (3.0, 4.0)]));
        assert_eq!((points("[[1,2,3]]"), points("[[1,\"2\"]]"), points("7")), (None, None, None));
    }
}
