//! The records: networks, attachments, leases, published ports.
