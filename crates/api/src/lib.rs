//! Kubernetes types of Arpeggio and their conversion into the pure models.
