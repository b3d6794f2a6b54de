"""Parts that several papers share: layers, and the front that one published code base has."""
