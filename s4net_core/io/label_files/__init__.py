"""Labels in files: where they lie beside images, LabelMe's annotations, and published tables of class ids."""
