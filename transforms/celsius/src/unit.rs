//! The scales a thermometer may report.

#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    #[default]
    Fahrenheit,
    Kelvin,
    Celsius,
}

impl Unit {
    pub(crate) fn to_celsius(self, degrees: f64) -> f64 {
        match self {
            Self::Fahrenheit => (degrees - 32.0) / 1.8,
            Self::Kelvin => degrees - 273.15,
            Self::Celsius => degrees,
        }
    }
}
