//! What every loss can be composed with, and how it is written beside the loss's own settings.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::reducers::ReducerConfig;
use super::regularizers::RegularizerConfig;
use crate::distances::DistanceConfig;

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(value: &f64) -> bool {
    value.to_bits() == 1.0_f64.to_bits()
}

/// Settings that every loss of the registry takes beside its own, in the same section.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LossOptions {
    /// How embeddings are compared; the loss's own distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<DistanceConfig>,
    /// How values become one number; the loss's own reducer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reducer: Option<ReducerConfig>,
    /// A cost on the embeddings; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_regularizer: Option<RegularizerConfig>,
    /// What that cost is multiplied by; 1.
    #[serde(skip_serializing_if = "is_one")]
    pub embedding_reg_weight: f64,
    /// A cost on the proxies; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_regularizer: Option<RegularizerConfig>,
    /// What that cost is multiplied by; 1.
    #[serde(skip_serializing_if = "is_one")]
    pub weight_reg_weight: f64,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self {
            distance: None,
            reducer: None,
            embedding_regularizer: None,
            embedding_reg_weight: one(),
            weight_regularizer: None,
            weight_reg_weight: one(),
        }
    }
}

impl LossOptions {
    /// Reads the value of a key if it is an option.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, table: &mut A) -> Result<bool, A::Error> {
        match key {
            "distance" => self.distance = Some(table.next_value()?),
            "reducer" => self.reducer = Some(table.next_value()?),
            "embedding-regularizer" => self.embedding_regularizer = Some(table.next_value()?),
            "embedding-reg-weight" => self.embedding_reg_weight = table.next_value()?,
            "weight-regularizer" => self.weight_regularizer = Some(table.next_value()?),
            "weight-reg-weight" => self.weight_reg_weight = table.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The settings of a loss together with what it is composed with: one section of a configuration file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Composed<C> {
    /// The loss's own settings.
    pub settings: C,
    /// What every loss takes.
    pub options: LossOptions,
}

impl<C> From<C> for Composed<C> {
    fn from(settings: C) -> Self {
        Self {
            settings,
            options: LossOptions::default(),
        }
    }
}

impl<C: Serialize> Serialize for Composed<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a, C> {
            #[serde(flatten)]
            settings: &'a C,
            #[serde(flatten)]
            options: &'a LossOptions,
        }
        Flat {
            settings: &self.settings,
            options: &self.options,
        }
        .serialize(serializer)
    }
}

impl<'de, C: Deserialize<'de>> Deserialize<'de> for Composed<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Section<C>(PhantomData<C>);

        impl<'de, C: Deserialize<'de>> Visitor<'de> for Section<C> {
            type Value = Composed<C>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the settings of a loss")
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Composed<C>, A::Error> {
                let mut options = LossOptions::default();
                let own = OwnKeys {
                    table,
                    options: &mut options,
                };
                let settings = C::deserialize(MapAccessDeserializer::new(own))?;
                Ok(Composed { settings, options })
            }
        }

        deserializer.deserialize_map(Section(PhantomData))
    }
}

/// The keys of a section that belong to the loss itself; options are read on the way, so that whoever reads the rest can
/// refuse what it does not know.
struct OwnKeys<'a, A> {
    table: A,
    options: &'a mut LossOptions,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnKeys<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(key) = self.table.next_key::<String>()? {
            if !self.options.read(&key, &mut self.table)? {
                let key: StringDeserializer<A::Error> = key.into_deserializer();
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.table.next_value_seed(seed)
    }
}

/// How many triplets a loss looks at where none were mined, written `"all"` or a number above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "NumberOrWord", into = "NumberOrWord")]
pub enum TripletsPerAnchor {
    /// All of them, without listing them.
    #[default]
    All,
    /// So many, drawn at random with replacement for each anchor.
    Number(usize),
}

impl TripletsPerAnchor {
    /// The number; none for all.
    #[must_use]
    pub fn number(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Number(number) => Some(number),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(i64),
    Word(String),
}

impl TryFrom<NumberOrWord> for TripletsPerAnchor {
    type Error = String;

    fn try_from(value: NumberOrWord) -> Result<Self, String> {
        let refused =
            |found: &str| format!("triplets-per-anchor is {found}, but it must be \"all\" or a number above 0");
        match value {
            NumberOrWord::Word(word) if word == "all" => Ok(Self::All),
            NumberOrWord::Word(word) => Err(refused(&word)),
            NumberOrWord::Number(number) => match usize::try_from(number) {
                Ok(number) if number > 0 => Ok(Self::Number(number)),
                _ => Err(refused(&number.to_string())),
            },
        }
    }
}

impl From<TripletsPerAnchor> for NumberOrWord {
    fn from(value: TripletsPerAnchor) -> Self {
        match value {
            TripletsPerAnchor::All => Self::Word("all".to_owned()),
            TripletsPerAnchor::Number(number) => Self::Number(i64::try_from(number).unwrap_or(i64::MAX)),
        }
    }
}
