//! How parts that have a name and perhaps settings are written in configuration files.

/// Lets an enum of settings be written as its name alone (`distance = "cosine"`) or as a table with one entry
/// (`distance = { lp = { p = 1.0 } }`, `[distance.lp]`), and reads both.
///
/// The enum derives `Serialize` and `Deserialize` with `#[serde(remote = "Self")]` and has struct variants only.
#[macro_export]
macro_rules! name_or_table {
    ($type:ty, $expected:literal) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$type>::serialize(self, serializer)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameOrTable;

                impl<'de> ::serde::de::Visitor<'de> for NameOrTable {
                    type Value = $type;

                    fn expecting(&self, formatter: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        formatter.write_str($expected)
                    }

                    fn visit_str<E: ::serde::de::Error>(self, name: &str) -> Result<$type, E> {
                        let mut table = ::serde_json::Map::new();
                        table.insert(
                            name.to_owned(),
                            ::serde_json::Value::Object(::serde_json::Map::new()),
                        );
                        <$type>::deserialize(::serde_json::Value::Object(table)).map_err(E::custom)
                    }

                    fn visit_map<A: ::serde::de::MapAccess<'de>>(self, table: A) -> Result<$type, A::Error> {
                        <$type>::deserialize(::serde::de::value::MapAccessDeserializer::new(table))
                    }
                }

                deserializer.deserialize_any(NameOrTable)
            }
        }
    };
}
