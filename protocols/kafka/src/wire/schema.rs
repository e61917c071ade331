//! The little language that messages are declared in.

/// Declares an API's messages.
///
/// ```text
/// schema! {
///     Fetch: FetchRequest => FetchResponse, versions 4..=18, flexible 12;
///     FetchRequest {
///         cluster_id: Option<Str> [12.., null 12.., tag 0],   // versions it is in, those it may be null in, its tag
///         replica_id: i32 [0..=14] = -1,                      // = what it is where it is absent, unless zero or empty
///     }
///     ...
/// }
/// ```
///
/// Each struct gets `Default`, `decode` and `encode`. A field that a version does not have keeps its default when decoded
/// and is left out when encoded. Tagged fields are written when they differ from their default; unknown ones are skipped.
macro_rules! schema {
    (
        $api:ident: $request:ident => $response:ident, versions $versions:expr, flexible $flexible:expr;
        $(
            $(#[$meta:meta])*
            $name:ident {
                $(
                    $(#[$field_meta:meta])*
                    $field:ident: $ty:ty [$since:expr $(, null $null:expr)? $(, tag $tag:literal)?] $(= $default:expr)?
                ),* $(,)?
            }
        )+
    ) => {
        impl $crate::wire::api::RequestMessage for $request {
            const KEY: $crate::wire::ApiKey = $crate::wire::ApiKey::$api;
            const VERSIONS: std::ops::RangeInclusive<i16> = $versions;
            const FLEXIBLE_FROM: i16 = $flexible;
            type Response = $response;
        }

        $(
            $(#[$meta])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_meta])* pub $field: $ty,)*
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($field: absent!($($default)?),)* }
                }
            }

            impl $name {
                /// Reads the message in this version.
                ///
                /// # Errors
                /// What is wrong with the bytes.
                pub fn decode(
                    r: &mut $crate::wire::Reader<'_>,
                    version: i16,
                ) -> Result<Self, $crate::wire::WireError> {
                    let flexible = version >= $flexible;
                    $(
                        let mut $field: $ty = absent!($($default)?);
                        if optional!($($tag)?).is_none() && ($since).contains(&version) {
                            $field = $crate::wire::primitives::Wire::read(r, cx!(version, flexible $(, $null)?))?;
                        }
                    )*
                    if flexible {
                        r.tagged(|r, tag| {
                            $(
                                if optional!($($tag)?) == Some(tag) && ($since).contains(&version) {
                                    $field = $crate::wire::primitives::Wire::read(
                                        r,
                                        cx!(version, flexible $(, $null)?),
                                    )?;
                                    return Ok(true);
                                }
                            )*
                            let _ = (r, tag);
                            Ok(false)
                        })?;
                    }
                    Ok(Self { $($field),* })
                }

                /// Writes the message in this version.
                pub fn encode(&self, w: &mut $crate::wire::Writer, version: i16) {
                    let flexible = version >= $flexible;
                    $(
                        if optional!($($tag)?).is_none() && ($since).contains(&version) {
                            $crate::wire::primitives::Wire::write(
                                &self.$field,
                                w,
                                cx!(version, flexible $(, $null)?),
                            );
                        }
                    )*
                    if flexible {
                        let tags: u32 = 0
                            $(
                                + u32::from(
                                    optional!($($tag)?).is_some()
                                        && ($since).contains(&version)
                                        && $crate::wire::primitives::differs(&self.$field, absent!($($default)?)),
                                )
                            )*;
                        w.varint(tags);
                        if tags > 0 {
                            $(
                                if let Some(tag) = optional!($($tag)?)
                                    && ($since).contains(&version)
                                    && $crate::wire::primitives::differs(&self.$field, absent!($($default)?))
                                {
                                    w.tagged(tag, |w| {
                                        $crate::wire::primitives::Wire::write(
                                            &self.$field,
                                            w,
                                            cx!(version, flexible $(, $null)?),
                                        );
                                    });
                                }
                            )*
                        }
                    }
                }
            }

            impl $crate::wire::api::ApiMessage for $name {
                fn decode(
                    r: &mut $crate::wire::Reader<'_>,
                    version: i16,
                ) -> Result<Self, $crate::wire::WireError> {
                    Self::decode(r, version)
                }
                fn encode(&self, w: &mut $crate::wire::Writer, version: i16) {
                    self.encode(w, version);
                }
            }

            impl $crate::wire::primitives::Wire for $name {
                fn least(cx: $crate::wire::primitives::Cx) -> usize {
                    let (version, flexible) = (cx.version, cx.flexible);
                    let mut least = usize::from(flexible);
                    $(
                        if optional!($($tag)?).is_none() && ($since).contains(&version) {
                            least += <$ty as $crate::wire::primitives::Wire>::least(
                                cx!(version, flexible $(, $null)?),
                            );
                        }
                    )*
                    least
                }
                fn read(
                    r: &mut $crate::wire::Reader<'_>,
                    cx: $crate::wire::primitives::Cx,
                ) -> Result<Self, $crate::wire::WireError> {
                    Self::decode(r, cx.version)
                }
                fn write(&self, w: &mut $crate::wire::Writer, cx: $crate::wire::primitives::Cx) {
                    self.encode(w, cx.version);
                }
            }

            /// A struct that may be null begins with a byte: 1, or -1 for null.
            impl $crate::wire::primitives::Nullable for $name {
                fn least_or_null(_: $crate::wire::primitives::Cx) -> usize {
                    1
                }
                fn read_or_null(
                    r: &mut $crate::wire::Reader<'_>,
                    cx: $crate::wire::primitives::Cx,
                ) -> Result<Option<Self>, $crate::wire::WireError> {
                    if r.i8()? < 0 { Ok(None) } else { Self::decode(r, cx.version).map(Some) }
                }
                fn write_some(&self, w: &mut $crate::wire::Writer, cx: $crate::wire::primitives::Cx) {
                    w.i8(1);
                    self.encode(w, cx.version);
                }
                fn write_null(w: &mut $crate::wire::Writer, _: $crate::wire::primitives::Cx) {
                    w.i8(-1);
                }
            }

            #[cfg(test)]
            impl $crate::wire::testing::Sample for $name {
                fn sample(g: &mut $crate::wire::testing::Source, cx: $crate::wire::primitives::Cx) -> Self {
                    let (version, flexible) = (cx.version, cx.version >= $flexible);
                    let mut sample = Self::default();
                    $(
                        if ($since).contains(&version) {
                            sample.$field =
                                $crate::wire::testing::Sample::sample(g, cx!(version, flexible $(, $null)?));
                        }
                    )*
                    sample
                }
            }
        )+
    };
}

/// A field's value where it is absent.
macro_rules! absent {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

/// A field's tag, if it has one.
macro_rules! optional {
    () => {
        None::<u32>
    };
    ($tag:literal) => {
        Some::<u32>($tag)
    };
}

/// A field's context.
macro_rules! cx {
    ($version:expr, $flexible:expr) => {
        $crate::wire::primitives::Cx { version: $version, flexible: $flexible, nullable: false }
    };
    ($version:expr, $flexible:expr, $null:expr) => {
        $crate::wire::primitives::Cx {
            version: $version,
            flexible: $flexible,
            nullable: ($null).contains(&$version),
        }
    };
}
