//! Settings that are one word of a few.

/// Defines the type of a setting that is one of these words, in lower case; the first is the default. Needs `serde`
/// among the module's own dependencies.
///
/// ```
/// use headwater_module::choice;
///
/// #[derive(serde::Deserialize)]
/// struct Report {
///     which: Which,
/// }
///
/// choice!(Which: First, Last, Both);
///
/// let which = |config| serde_json::from_str::<Report>(config).map(|report| report.which);
/// assert_eq!(which(r#"{"which":"last"}"#).unwrap(), Which::Last);
/// assert_eq!(which("{}").unwrap(), Which::First);
/// assert!(which(r#"{"which":"none"}"#).is_err());
/// ```
#[macro_export]
macro_rules! choice {
    ($name:ident: $first:ident $(, $other:ident)* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name {
            $first,
            $($other,)*
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(::serde::Deserialize)]
                #[serde(rename_all = "lowercase")]
                enum Named {
                    $first,
                    $($other,)*
                }
                // What may be missing is an option to serde.
                Ok(match <Option<Named> as ::serde::Deserialize>::deserialize(deserializer)? {
                    None | Some(Named::$first) => Self::$first,
                    $(Some(Named::$other) => Self::$other,)*
                })
            }
        }
    };
}
