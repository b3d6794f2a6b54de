"""Small run folders, predictions and pages."""
