//! DescribeClientQuotas: what clients are held to.

use crate::wire::Str;

schema! {
    DescribeClientQuotas: DescribeClientQuotasRequest => DescribeClientQuotasResponse, versions 0..=1, flexible 1;

    DescribeClientQuotasRequest {
        components: Vec<QuotaComponent> [0..],
        strict: bool [0..],
    }

    QuotaComponent {
        entity_type: Str [0..],
        match_type: i8 [0..],
        matched: Option<Str> [0.., null 0..],
    }

    DescribeClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        entries: Option<Vec<QuotaEntry>> [0.., null 0..],
    }

    QuotaEntry {
        entity: Vec<QuotaEntity> [0..],
        values: Vec<QuotaValue> [0..],
    }

    QuotaEntity {
        entity_type: Str [0..],
        entity_name: Option<Str> [0.., null 0..],
    }

    QuotaValue {
        key: Str [0..],
        /// The bits of a number of 64 bits with a floating point.
        value: i64 [0..],
    }
}
