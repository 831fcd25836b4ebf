//! Networks and attachments: plan, apply, check, collect.
