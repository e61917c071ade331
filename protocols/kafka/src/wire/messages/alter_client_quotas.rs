//! AlterClientQuotas: what clients are to be held to.

use crate::wire::Str;

schema! {
    AlterClientQuotas: AlterClientQuotasRequest => AlterClientQuotasResponse, versions 0..=1, flexible 1;

    AlterClientQuotasRequest {
        entries: Vec<QuotaAlteration> [0..],
        validate_only: bool [0..],
    }

    QuotaAlteration {
        entity: Vec<AlteredQuotaEntity> [0..],
        ops: Vec<QuotaOp> [0..],
    }

    AlteredQuotaEntity {
        entity_type: Str [0..],
        entity_name: Option<Str> [0.., null 0..],
    }

    QuotaOp {
        key: Str [0..],
        /// The bits of a number of 64 bits with a floating point.
        value: i64 [0..],
        remove: bool [0..],
    }

    AlterClientQuotasResponse {
        throttle_time_ms: i32 [0..],
        entries: Vec<AlteredQuota> [0..],
    }

    AlteredQuota {
        error_code: i16 [0..],
        error_message: Option<Str> [0.., null 0..],
        entity: Vec<AlteredQuotaEntity> [0..],
    }
}
