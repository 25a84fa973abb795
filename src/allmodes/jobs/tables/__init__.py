"""The field's tables: methods down, metrics across, published figures beside."""
