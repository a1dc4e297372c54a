"""Known equations of fields."""
